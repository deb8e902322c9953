"""Large files that are no adapters: their kohya and BLAKE3 come with the first question for them, and identity needs neither."""

import json
from pathlib import Path

import pytest
from blake3 import blake3

from loraloom.cli import main
from registry.formats import hashing
from registry.formats.hashing import hash_file
from registry.store import Store
from tests.registry.made import lora, model

SHAPES = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "b": (5,)}
WAIT = {"kohya", "tensors_sha256", "blake3"}


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "LARGE", 0)


def missing(store: Store, name: str) -> set[str]:
    hashes = vars(store.find(name, fresh=False).hashes)
    return {each for each in WAIT if hashes[each] is None}


def test_what_can_wait_waits_and_the_rest_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    model(path, SHAPES, metadata={"ss_seed": "1"})
    part, whole = hash_file(path, whole=False)[0], hash_file(path)[0]
    assert {name for name, value in vars(part).items() if value != getattr(whole, name)} == WAIT
    assert whole.blake3 == blake3(path.read_bytes()).hexdigest() and part.same_weights(whole)
    assert part.of_a_file_in_part and not whole.of_a_file_in_part


def test_of_an_adapter_and_of_another_format_nothing_waits(tmp_path: Path) -> None:
    lora(tmp_path / "ink.safetensors", {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (4, 4)}, dialect="kohya")
    (tmp_path / "x.bin").write_bytes(b"no tensors")
    for name in ("ink.safetensors", "x.bin"):
        assert hash_file(tmp_path / name, whole=False) == hash_file(tmp_path / name)


def test_the_first_question_for_one_model_has_the_rest_and_keeps_it(store: Store, tmp_path: Path) -> None:
    model(tmp_path / "models" / "x.safetensors", SHAPES)
    store.scan(tmp_path / "models", hash=True)
    assert missing(store, "x") == WAIT
    assert store.sha256(store.find("x")) and missing(store, "x") == WAIT
    shown = store.hashed(store.find("x"))
    assert shown.hashes == hash_file(tmp_path / "models" / "x.safetensors")[0] and missing(store, "x") == set()
    store.scan(tmp_path / "models", hash=True)
    assert missing(store, "x") == set()


def test_digits_that_no_hash_has_are_looked_for_in_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    path = tmp_path / "models" / "x.safetensors"
    model(path, SHAPES)
    Store().scan(tmp_path / "models", hash=True)
    assert main(["registry", "find", "0" * 12, "--json"]) == 0 and json.loads(capsys.readouterr().out) == []
    assert missing(Store(), "x") == set()
    assert main(["registry", "find", blake3(path.read_bytes()).hexdigest()[:12], "--json"]) == 0
    assert [record["name"] for record in json.loads(capsys.readouterr().out)] == ["x"]


def test_a_file_whose_metadata_were_edited_and_that_was_renamed_is_the_same_record(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    model(folder / "x.safetensors", SHAPES)
    store.scan(folder, hash=True)
    record = store.tag("x", ["best"])
    (folder / "x.safetensors").unlink()
    model(folder / "y.safetensors", SHAPES, metadata={"modelspec.title": "another title"})
    store.scan(folder)
    assert store.find("y").id == record.id and store.find("y").tags == ("best",)


def test_notes_find_a_file_whose_rest_is_known_on_one_side_only(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "models" / "x.safetensors", SHAPES)
    store.scan(tmp_path / "models", hash=True)
    store.tag("x", ["best"])
    store.hashed(store.find("x"))
    (tmp_path / "notes.json").write_text(json.dumps(store.export_notes()))
    monkeypatch.delenv("LORALOOM_INDEX", raising=False)
    other = Store(tmp_path / "other")  # on another machine: an index of its own
    other.scan(tmp_path / "models", hash=True)
    done = other.import_notes(tmp_path / "notes.json")
    assert done.applied and not done.conflicts and not done.unmatched
    assert missing(other, "x") == WAIT and other.find("x").tags == ("best",)
