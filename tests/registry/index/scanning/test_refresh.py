"""One record refreshed from its file: unchanged, changed, swapped, missing, back again."""

from pathlib import Path

import pytest

from registry.index.scanning.refresh import refresh_record
from registry.record import Record
from registry.store import Store
from tests.registry.made import diffusers_folder, lora, sd1_attention


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    """A registered and hashed file."""
    path = tmp_path / "a.safetensors"
    lora(path, sd1_attention(blocks=(0,)), seed="a")
    store.add(path, tags=["mine"])
    return path


def stored(store: Store, path: Path) -> Record:
    """The record as the index has it."""
    return store.find(str(path), fresh=False)


def refreshed(store: Store, record: Record) -> Record:
    return refresh_record(record, store._index, store._digests.digest)


def test_an_unchanged_file_gives_the_same_record(store: Store, path: Path) -> None:
    before = stored(store, path)
    assert refreshed(store, before) is before


def test_a_changed_file_is_inspected_again(store: Store, path: Path) -> None:
    before = stored(store, path)
    lora(path, sd1_attention(blocks=(0,)), seed="b", rank=8)
    after = refreshed(store, before)
    assert (after.id, after.rank, after.hashes.sha256, after.tags) == (before.id, 8, None, ("mine",)) and before.rank != 8


def test_a_swapped_file_gives_the_record_of_the_file_that_is_there_now(store: Store, path: Path) -> None:
    other, aside = path.with_name("b.safetensors"), path.with_name("c")
    lora(other, sd1_attention(blocks=(0,)), seed="b")
    second = store.add(other, tags=["other"])
    before = stored(store, path)
    path.rename(aside)
    other.rename(path)
    aside.rename(other)
    assert refreshed(store, before).id == second.id and stored(store, other).id == before.id


def test_a_missing_file_gets_a_warning_once(store: Store, path: Path) -> None:
    before = stored(store, path)
    path.unlink()
    gone = refreshed(store, before)
    assert [warning.code for warning in gone.warnings] == ["missing"] and refreshed(store, gone) is gone


def test_a_missing_file_with_a_copy_gives_the_copy(store: Store, path: Path) -> None:
    copy = path.with_name("copy.safetensors")
    copy.write_bytes(path.read_bytes())
    store.add(copy)
    before = stored(store, copy)
    copy.unlink()
    found = refreshed(store, before)
    assert (found.id, found.path, found.warnings) == (before.id, str(path), ())


def test_a_file_that_is_back_loses_the_warning(store: Store, path: Path) -> None:
    before, data = stored(store, path), path.read_bytes()
    path.unlink()
    gone = refreshed(store, before)
    path.write_bytes(data)
    assert refreshed(store, gone).warnings == () and stored(store, path).tags == ("mine",)


def test_a_folder_is_left_to_scans(store: Store, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "base")
    before = store.add(folder)
    (folder / "model_index.json").write_text("{}")
    assert refreshed(store, before) is before


def test_a_file_that_is_not_registered_is_left_alone(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "new.safetensors", sd1_attention(blocks=(0,)))
    record = store.find(str(tmp_path / "new.safetensors"))
    assert record.id == "" and refreshed(store, record) is record
