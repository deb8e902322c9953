"""Batches of files written as records: new, changed, hard-linked, missing, and copies that outlive the first file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from registry.detect.inspect import inspect
from registry.index import database as tables
from registry.index import records, rows
from registry.index.database import Index
from registry.index.scanning.record_matcher import RecordMatcher, Seen, place_with_fingerprint
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.scan_write import mark_missing, upsert
from registry.index.storage.hash_cache import Digests
from registry.progress import silent
from registry.record import Record
from tests.registry.made import lora, sd1_attention


@pytest.fixture
def index(tmp_path: Path, database: str) -> Index:
    return Index(os.environ.get("LORALOOM_INDEX", tmp_path / "index.sqlite"))


def file(path: Path, seed: str = "a") -> Path:
    lora(path, sd1_attention(blocks=(0,)), seed=seed)
    return path


def write(index: Index, *paths: Path) -> ScanReport:
    """One batch of a scan."""
    found = ScanReport(index)
    batch = [Seen(place_with_fingerprint(path), inspect(path)) for path in paths]
    upsert(index, batch, found, RecordMatcher(index, Digests(index).digest))
    return found


def miss(index: Index, *paths: Path) -> ScanReport:
    """What a scan does with known paths that it did not find."""
    found = ScanReport(index)
    mark_missing(index, [*map(str, paths)], found, RecordMatcher(index, Digests(index).digest))
    return found


def places(index: Index) -> list[Any]:
    with index.reading() as connection:
        return list(connection.execute(select(tables.location)))


def known(index: Index) -> list[Record]:
    with index.reading() as connection:
        return records.load(connection)


def hash_record(index: Index, record: Record) -> None:
    """Store a record's hashes."""
    hashes, learned = Digests(index).of_record(record, silent)
    with index.writing() as connection:
        rows.put_content(connection, record.id, hashes, learned)


def test_a_new_file_is_added_once(index: Index, tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    assert write(index, path).added == 1
    again = write(index, path)
    assert (again.added, again.updated) == (0, 1) and [record.path for record in known(index)] == [str(path)]


def test_a_changed_file_loses_its_hashes_and_keeps_its_record(index: Index, tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    write(index, path)
    (before,) = known(index)
    hash_record(index, before)
    lora(path, sd1_attention(blocks=(0, 1)), seed="b")
    assert write(index, path).updated == 1
    (after,) = known(index)
    assert after.id == before.id and after.hashes.sha256 is None


def test_a_hard_link_is_another_place_of_the_same_record(index: Index, tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    write(index, path)
    os.link(path, tmp_path / "b.safetensors")
    write(index, path)  # a new link changes the time of the inode
    assert write(index, tmp_path / "b.safetensors").unchanged == 1
    assert len(known(index)) == 1 and len(places(index)) == 2


def test_a_moved_file_keeps_its_record_and_leaves_its_old_place(index: Index, tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    write(index, path)
    (before,) = known(index)
    path.rename(tmp_path / "b.safetensors")
    assert write(index, tmp_path / "b.safetensors").relinked == 1
    assert [record.id for record in known(index)] == [before.id] and [row.path for row in places(index)] == [
        str(tmp_path / "b.safetensors")
    ]


def test_a_place_without_a_file_is_marked_missing(index: Index, tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    write(index, path)
    path.unlink()
    assert miss(index, path).missing == 1 and places(index)[0].missing == 1
    assert [warning.code for warning in known(index)[0].warnings] == ["missing"]


def test_a_file_that_exists_is_not_marked_missing(index: Index, tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    write(index, path)
    assert miss(index, path).missing == 0 and places(index)[0].missing == 0


def test_a_missing_place_of_a_record_with_another_place_is_deleted(index: Index, tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    os.link(path, tmp_path / "b.safetensors")
    write(index, path, tmp_path / "b.safetensors")
    path.unlink()
    assert miss(index, path).missing == 0 and [row.path for row in places(index)] == [str(tmp_path / "b.safetensors")]


def test_a_record_without_a_file_is_merged_with_its_surviving_copy(index: Index, tmp_path: Path) -> None:
    path, copy = file(tmp_path / "a.safetensors"), file(tmp_path / "b.safetensors")
    write(index, path, copy)
    first, second = known(index)
    kept = first if first.path == str(path) else second
    hash_record(index, kept)
    with index.writing() as connection:
        rows.put_given(connection, kept.id, {"notes": "mine"})
    path.unlink()
    assert miss(index, path).relinked == 1
    (left,) = known(index)
    assert (left.id, left.path, left.notes) == (kept.id, str(copy), "mine")


def test_a_file_of_the_same_header_and_other_weights_is_no_surviving_copy(index: Index, tmp_path: Path) -> None:
    path, other = file(tmp_path / "a.safetensors", "a"), file(tmp_path / "b.safetensors", "b")
    write(index, path, other)
    (lost,) = [record for record in known(index) if record.path == str(path)]
    hash_record(index, lost)
    path.unlink()
    assert miss(index, path).missing == 1 and len(known(index)) == 2


def test_an_empty_batch_writes_nothing(index: Index, tmp_path: Path) -> None:
    assert write(index).ids == {} and not (tmp_path / "index.sqlite").exists()
