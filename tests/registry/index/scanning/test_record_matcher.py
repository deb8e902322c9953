"""Identity is content: what was said of a model stays with its weights, wherever the file goes and whatever takes its place."""

import os
import shutil
from pathlib import Path

import pytest

from registry.errors import Refused
from registry.formats import hashing
from registry.index.scanning.scan import ScanReport
from registry.progress import Report
from registry.record import Hashes, Record
from registry.store import Store
from tests.registry.made import diffusers_folder, lora, sd1_attention


def make(path: Path, seed: str, **options: object) -> Path:
    lora(path, sd1_attention(blocks=(0,)), seed=seed, **options)  # type: ignore[arg-type]
    return path


def counts(report: ScanReport) -> dict[str, int]:
    reported = {name: getattr(report, name) for name in ("added", "updated", "relinked", "unchanged", "missing")}
    return {name: count for name, count in reported.items() if count}


@pytest.fixture
def models(tmp_path: Path, store: Store) -> Path:
    """Two scanned files, a and b, of which much was said of a."""
    folder = tmp_path / "models"
    make(folder / "a.safetensors", "a")
    make(folder / "b.safetensors", "b")
    store.scan(folder)
    store.tag("a", ["best"])
    store.note("a", "mine")
    store.alias("a", "one")
    store.tag("b", ["other"])
    return folder


def said(record: Record) -> tuple[tuple[str, ...], str | None]:
    return record.tags, record.notes


def at(store: Store, path: Path) -> Record:
    return store.find(str(path))


@pytest.mark.parametrize("first", ["scan", "find"])
def test_two_files_that_change_names_keep_what_was_said_of_each(store: Store, models: Path, first: str) -> None:
    a, b, other = (models / name for name in ("a.safetensors", "b.safetensors", "c"))
    a.rename(other)
    b.rename(a)
    other.rename(b)
    if first == "find":
        assert said(at(store, a)) == (("other",), None)
    report = store.scan(models)
    assert counts(report) == ({"relinked": 2} if first == "scan" else {"unchanged": 2})
    assert said(at(store, b)) == (("best",), "mine") and said(at(store, a)) == (("other",), None)
    assert store.find("a@one").path == str(b) and len(store.records(kind="adapter")) == 2


def test_a_file_put_in_the_place_of_one_that_moved_is_another(store: Store, models: Path) -> None:
    (models / "a.safetensors").rename(models / "kept.safetensors")
    make(models / "a.safetensors", "new")
    assert counts(store.scan(models)) == {"relinked": 1, "added": 1, "unchanged": 1}
    assert said(at(store, models / "kept.safetensors")) == (("best",), "mine")
    assert said(at(store, models / "a.safetensors")) == ((), None)


def test_a_copy_whose_original_was_replaced_keeps_what_was_said(store: Store, models: Path) -> None:
    shutil.copyfile(models / "a.safetensors", models / "kept.safetensors")
    (models / "a.safetensors").unlink()
    make(models / "a.safetensors", "new")
    store.scan(models)
    assert said(at(store, models / "kept.safetensors")) == (("best",), "mine")
    assert said(at(store, models / "a.safetensors")) == ((), None)


def test_a_copy_that_was_scanned_before_its_original_went_is_joined_with_it(store: Store, models: Path) -> None:
    shutil.copyfile(models / "a.safetensors", models / "copy.safetensors")
    assert counts(store.scan(models)) == {"added": 1, "unchanged": 2}
    store.tag("copy", ["copied"])
    record = store.find("a@one")
    (models / "a.safetensors").unlink()
    assert counts(store.scan(models)) == {"relinked": 1, "unchanged": 2}
    found = at(store, models / "copy.safetensors")
    assert (found.id, found.tags, found.notes, found.name) == (record.id, ("best", "copied"), "mine", "copy")
    assert len(store.records(kind="adapter")) == 2 and store.find("a@one").id == record.id and not found.warnings


def test_metadata_edited_and_the_file_renamed_at_once_is_the_same_record(store: Store, models: Path) -> None:
    record = store.find("a")
    (models / "a.safetensors").unlink()
    make(models / "renamed.safetensors", "a", metadata={"modelspec.title": "another title"})
    assert counts(store.scan(models)) == {"relinked": 1, "unchanged": 1}
    found = at(store, models / "renamed.safetensors")
    assert found.id == record.id and said(found) == (("best",), "mine") and found.metadata["modelspec.title"] == "another title"
    assert found.hashes.tensors_sha256 == record.hashes.tensors_sha256 and found.hashes.sha256 != record.hashes.sha256


def test_a_backup_made_before_an_edit_of_the_metadata_does_not_take_what_was_said(store: Store, models: Path) -> None:
    shutil.copy2(models / "a.safetensors", models / "a-backup.safetensors")
    new = make(models / "new", "a", metadata={"modelspec.title": "edited"})
    new.replace(models / "a.safetensors")
    store.scan(models)
    found = at(store, models / "a.safetensors")
    assert said(found) == (("best",), "mine") and found.metadata["modelspec.title"] == "edited"
    assert said(at(store, models / "a-backup.safetensors")) == ((), None)


def test_an_added_file_that_was_copied_and_deleted_is_known_again(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "m" / "ink.safetensors", "ink")
    record = store.add(path, name="ink", tags=["t"])
    (tmp_path / "m" / "sub").mkdir()
    shutil.copyfile(path, tmp_path / "m" / "sub" / "x.safetensors")
    path.unlink()
    assert counts(store.scan(tmp_path / "m")) == {"relinked": 1}
    assert store.find("ink").id == record.id and store.find("ink").path == str(tmp_path / "m" / "sub" / "x.safetensors")


def test_a_folder_that_was_copied_and_deleted_is_known_again(store: Store, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "m" / "base", width=256)
    record = store.add(folder, name="base", tags=["t"])
    shutil.copytree(folder, tmp_path / "m" / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    assert counts(store.scan(tmp_path / "m")) == {"relinked": 1}
    assert store.find("base").id == record.id and store.find("base").path == str(tmp_path / "m" / "copy")


def test_an_alias_follows_a_renamed_file(store: Store, models: Path) -> None:
    (models / "a.safetensors").rename(models / "z.safetensors")
    store.scan(models)
    found = store.find("z@one")
    assert found.aliases == ("one",) and store.find("a@one").id == found.id
    assert store.alias("z", "one", remove=True).aliases == ()
    with pytest.raises(Refused, match="has no alias"):
        store.alias("z", "one", remove=True)


def test_a_rename_keeps_the_hash_that_references_are_made_of(store: Store, models: Path) -> None:
    sha256 = str(store.find("a").hashes.sha256)
    (models / "a.safetensors").rename(models / "z.safetensors")
    store.scan(models)
    assert store.find(f"sha256:{sha256[:10]}").path == str(models / "z.safetensors")


def test_what_is_said_is_said_of_the_weights(store: Store, models: Path) -> None:
    make(models / "c.safetensors", "c")
    store.scan(models)
    assert store.find("c").hashes.sha256 is None
    assert store.tag("c", ["x"]).hashes.sha256 is not None


def test_a_file_that_is_gone_is_reported_before_any_scan_and_its_copy_is_used(store: Store, models: Path) -> None:
    copy = models / "copy.safetensors"
    shutil.copyfile(models / "a.safetensors", copy)
    store.add(copy)
    store.add(models / "a.safetensors", name="ink")
    assert store.find("ink").path == str(models / "a.safetensors")
    (models / "a.safetensors").unlink()
    assert store.find("ink").path == str(copy) and store.find("ink").warnings == ()
    copy.unlink()
    assert [warning.code for warning in store.find("ink").warnings] == ["missing"] and store.find("ink").tags == ("best",)


def test_a_drive_that_was_away_comes_back_with_its_hashes(store: Store, models: Path) -> None:
    store.scan(models, hash=True)
    sha256 = store.find("b").hashes.sha256
    models.rename(models.with_name("away"))
    assert store.find("b").warnings[0].code == "missing"
    store.find("a")
    models.with_name("away").rename(models)
    assert store.find("a").warnings == ()
    assert counts(store.scan(models)) == {"updated": 1, "unchanged": 1}
    found = store.find("b")
    assert found.warnings == () and found.hashes.sha256 == sha256 and found.tags == ("other",)


def test_a_restored_backup_is_not_read_again(store: Store, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.scan(models, hash=True)
    before = {name: store.find(name).hashes.sha256 for name in ("a", "b")}
    shutil.copytree(models, models.with_name("backup"))
    shutil.rmtree(models)
    models.with_name("backup").rename(models)
    read: list[str] = []
    real = hashing.hash_file

    def noted(path: Path, *, report: Report) -> tuple[Hashes, dict[str, object]]:
        read.append(str(path))
        return real(path, report=report)

    monkeypatch.setattr("registry.index.storage.hash_cache.hash_file", noted)
    store.scan(models)
    assert read == [] and {name: store.find(name).hashes.sha256 for name in ("a", "b")} == before
    assert said(store.find("a")) == (("best",), "mine")


def test_two_files_swapped_by_copying_keep_what_was_said_of_each(store: Store, models: Path) -> None:
    store.scan(models, hash=True)
    a, b = models / "a.safetensors", models / "b.safetensors"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    assert counts(store.scan(models)) == {"relinked": 2}
    assert said(at(store, b)) == (("best",), "mine") and said(at(store, a)) == (("other",), None)


def test_no_file_is_touched(store: Store, models: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {name: (os.stat(models / name).st_ino, os.stat(models / name).st_mtime_ns) for name in os.listdir(models)}

    before = state()
    store.scan(models, hash=True)
    store.find("a")
    assert state() == before
