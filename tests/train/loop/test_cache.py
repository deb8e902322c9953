from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from train.loop.cache import Cache, digest_of


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, notes: list[str]) -> Cache:
    cache = Cache("texts", root=tmp_path, note=notes.append)
    cache.put("ab12", {"embeds": torch.arange(6.0).view(2, 3), "mask": torch.tensor([True, False])})
    return cache


def test_an_intact_entry_comes_back_without_a_note(cache: Cache, notes: list[str]) -> None:
    found = cache.get("ab12")
    assert found is not None and found["embeds"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["mask"].tolist() == [True, False]
    assert cache.get("cd34") is None and notes == []


def test_a_flip_of_any_bit_is_noticed(cache: Cache, notes: list[str]) -> None:
    path = cache.path("ab12")
    whole = path.read_bytes()
    values = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found = cache.get("ab12")
        if found is not None:  # a flip in the header's spaces changes nothing
            assert place < len(whole) - 26 and all(torch.equal(found[name], value) for name, value in values.items())
    assert len(notes) > 100 and "are made again: the file is damaged" in notes[-1] and str(path) in notes[-1]


def test_an_entry_under_another_key_and_one_without_a_digest_are_made_again(cache: Cache, notes: list[str]) -> None:
    other = cache.path("ab99")
    cache.path("ab12").rename(other)
    assert cache.or_make("ab99", lambda: {"embeds": torch.zeros(1)})[1]
    assert cache.or_make("ab99", lambda: {"embeds": torch.ones(1)}) == ({"embeds": torch.zeros(1)}, False)
    save_file({"embeds": torch.zeros(1)}, other)
    assert cache.get("ab99") is None
    assert ["digest is another one" in notes[0], "without a digest" in notes[1]] == [True, True]


def test_the_digest_is_of_names_types_shapes_and_bytes() -> None:
    one = digest_of("k", {"a": torch.zeros(2, 1)})
    others = [{"b": torch.zeros(2, 1)}, {"a": torch.zeros(1, 2)}, {"a": torch.zeros(2, 1, dtype=torch.int32)}, {"a": torch.ones(2, 1)}]
    assert len({one, *(digest_of("k", tensors) for tensors in others), digest_of("l", {"a": torch.zeros(2, 1)})}) == 6
