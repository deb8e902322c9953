"""Matches new and changed files to records: files that were moved, swapped, copied, hard-linked, or had their metadata edited."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3
from sqlalchemy import select

from registry.errors import BadFile
from registry.formats.safetensors_header import read_header_bytes
from registry.index import database as tables
from registry.index import records, rows
from registry.index.database import Index
from registry.index.rows import Place
from registry.record import FileEntry, Hashes, Record

Digest = Callable[[Record], Hashes]
WEIGHTS_BUDGET = 2 << 30  # bytes a scan reads to find files whose metadata alone were edited
METADATA_BYTES = 4 << 20  # an edit of the metadata, thumbnails included, changes a file's size by less
WEIGHTS = ("kind", "dtype", "rank", "algorithms", "components", "dialect")  # facts that an edit of the metadata does not change


@dataclass(frozen=True)
class Seen:
    """A file or folder that is new or has changed, inspected and not yet written."""

    place: Place
    record: Record


def fingerprint(raw: bytes) -> str:
    """The blake3 of a safetensors header."""
    return blake3(raw).hexdigest()


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint of a file's header; None for what has none."""
    try:
        return fingerprint(read_header_bytes(path)[1])
    except (BadFile, OSError):
        return None


def place_with_fingerprint(path: Path) -> Place:
    """The Place of an existing path, with the fingerprint of its header where it has one."""
    return replace(rows.place_of(path), fingerprint=fingerprint_of(path) if path.is_file() else None)


class RecordMatcher:
    """Matches files to records by place, header and content. Reads all places once, at the first unknown file."""

    def __init__(self, index: Index, digest: Digest) -> None:
        self._index = index
        self.digest = digest
        self._rows: list[Any] | None = None
        self._paths: dict[str, Any] = {}
        self._vacated: dict[str, list[Any]] | None = None
        self._vacated_by_bytes: dict[int, list[Any]] | None = None
        self._lost: dict[str, Record] | None = None
        self._lost_by_weights: dict[tuple[Any, ...], list[Record]] | None = None
        self._by_fingerprint: dict[tuple[int, str], list[Any]] | None = None
        self._budget = WEIGHTS_BUDGET
        self._by_inode: dict[tuple[str, str], tuple[str, str]] = {}  # device, inode -> record, path
        self.matched: set[str] = set()  # records whose file this scan found elsewhere

    def _read(self) -> list[Any]:
        if self._rows is None:
            with self._index.reading() as connection:
                self._rows = list(connection.execute(select(tables.location)))
            self._paths = {row.path: row for row in self._rows}
            for row in self._rows:
                self._by_inode.setdefault((row.device, row.inode), (row.record_id, row.path))
        return self._rows

    def copies_of(self, row: Any) -> list[str]:
        """Records with an existing file of the same header and size in another place."""
        self._read()
        if self._by_fingerprint is None:
            self._by_fingerprint = {}
            for known in self._rows or ():
                if known.fingerprint is not None:
                    self._by_fingerprint.setdefault((known.bytes, known.fingerprint), []).append(known)
        alike = self._by_fingerprint.get((row.bytes, row.fingerprint), [])
        return [one.record_id for one in alike if one.record_id != row.record_id and os.path.isfile(one.path)]

    def vacated(self) -> dict[str, list[Any]]:
        """Record -> its places that are empty or hold another file now."""
        if self._vacated is None:
            self._vacated = {}
            for row in self._read():
                if _is_vacated(row):
                    self._vacated.setdefault(row.record_id, []).append(row)
        return self._vacated

    def _vacated_of_size(self, size: int) -> list[Any]:
        """The vacated places of files of that size; folders have 0."""
        if self._vacated_by_bytes is None:
            self._vacated_by_bytes = {}
            for row in (row for found in self.vacated().values() for row in found):
                self._vacated_by_bytes.setdefault(row.bytes, []).append(row)
        return self._vacated_by_bytes.get(size, [])

    def _lost_records(self) -> dict[str, Record]:
        """The records with a vacated place, by id."""
        if self._lost is None:
            with self._index.reading() as connection:
                self._lost = {record.id: record for record in records.load(connection, list(self.vacated()))} if self.vacated() else {}
        return self._lost

    def hardlink_of(self, place: Place) -> str | None:
        """The record of the same file (inode) under another path; a reused inode is not the same file."""
        self._read()
        record_id, path = self._by_inode.get((place.device, place.inode), (None, ""))
        if record_id is None or path == place.path or not os.path.exists(path):
            return None
        return record_id if rows.place_of(path).signature == place.signature else None

    def remember(self, place: Place, record_id: str) -> None:
        """Remember a file that this scan wrote."""
        self._by_inode[place.device, place.inode] = (record_id, place.path)

    def forget(self, places: Iterable[Place]) -> None:
        """Forget files whose transaction was rolled back."""
        for place in places:
            self._by_inode.pop((place.device, place.inode), None)

    def swap_cycle(self, path: str) -> list[str]:
        """A path and those whose files were swapped with it: a's file is at b, b's at c, c's at a."""
        by_inode = {row.inode: row.path for found in self.vacated().values() for row in found}
        cycle = [path]
        while (following := by_inode.get(str(os.stat(cycle[-1]).st_ino))) not in (None, *cycle) and os.path.isfile(str(following)):
            cycle.append(str(following))
        return cycle

    def match(self, seen: Seen) -> tuple[str | None, str]:
        """(record id, action): the record with a vacated place whose file this is, or (None, 'added')."""
        place = seen.place
        if not self.vacated():
            return None, "added"
        others = [row for row in self._vacated_of_size(place.bytes) if row.path != place.path]
        alike = [row for row in others if row.fingerprint is None or place.fingerprint in (None, row.fingerprint)]
        same = others if "root" in seen.record.metadata else alike  # a folder's fingerprint is only its files' sizes and times
        moved = {row.record_id for row in same if (row.inode, row.device, row.mtime_ns) == (place.inode, place.device, place.mtime_ns)}
        record_id = moved.pop() if len(moved) == 1 else None
        if record_id is None and not self._is_restored(place):
            record_id = self._by_content(seen, alike) or (None if place.path in self._paths else self._by_weights(seen))
        if record_id is None:
            return None, "added"
        self.matched.add(record_id)
        return record_id, "relinked"

    def _by_content(self, seen: Seen, alike: list[Any]) -> str | None:
        """Of the records with a vacated place, this header and size: the one of the same hash, or the only one of the same time."""
        ids: set[str] = {row.record_id for row in alike}
        if "root" in seen.record.metadata:
            ids |= {key for key, record in self._lost_records().items() if _same_listing(record, seen.record)}
        lost = self._lost_records()
        hashed = {key: lost[key].hashes.sha256 for key in ids if key in lost and lost[key].hashes.sha256}
        mine = self._hash(seen.record) if hashed else None
        same = [key for key, sha256 in hashed.items() if mine is not None and sha256 == mine.sha256 and not self._stayed(lost[key])]
        if same:
            return same[0]
        timed: set[str] = {row.record_id for row in alike if row.mtime_ns == seen.place.mtime_ns and not os.path.lexists(row.path)}
        timed -= set(hashed) | self.matched
        return timed.pop() if len(timed) == 1 else None

    def _by_weights(self, seen: Seen) -> str | None:
        """The record with a vacated place whose tensors have the same hash: its metadata alone were edited."""
        place, facts = seen.place, tuple(getattr(seen.record, name) for name in WEIGHTS)
        if "root" in seen.record.metadata:
            return None
        lost = [record for record in self._lost_like(facts) if any(_near(row, place) for row in self.vacated()[record.id])]
        if not lost or place.bytes > self._budget:
            return None
        self._budget -= place.bytes
        mine = self._hash(seen.record)
        if mine is None:
            return None
        same = [record.id for record in lost if record.hashes.same_weights(mine) and not self._stayed(record)]
        return same[0] if same else None

    def _lost_like(self, facts: tuple[Any, ...]) -> list[Record]:
        """The hashed records with a vacated place and these facts that are not matched yet."""
        if self._lost_by_weights is None:
            self._lost_by_weights = {}
            for record in self._lost_records().values():
                if record.hashes.tensors_sha256 or record.hashes.content_sha256:
                    self._lost_by_weights.setdefault(tuple(getattr(record, name) for name in WEIGHTS), []).append(record)
        return [record for record in self._lost_by_weights.get(facts, []) if record.id not in self.matched]

    def _is_restored(self, place: Place) -> bool:
        """Whether a known place has a file of the same header, size and time, such as a restored backup."""
        row = self._paths.get(place.path)
        if row is None or row.fingerprint is None:
            return False
        return bool((row.bytes, row.mtime_ns, row.fingerprint) == (place.bytes, place.mtime_ns, place.fingerprint))

    def _stayed(self, record: Record) -> bool:
        """Whether the weights are still in their place: the file was rewritten, as an edit of the metadata does."""
        there = (replace(record, files=(FileEntry(path=row.path, bytes=row.bytes),)) for row in self.vacated()[record.id])
        found = (self._hash(one) for one in there if os.path.isfile(str(one.path)))
        return any(one is not None and one.same_weights(record.hashes) for one in found)

    def _hash(self, record: Record) -> Hashes | None:
        try:
            return self.digest(record)
        except (BadFile, OSError):
            return None


def _is_vacated(row: Any) -> bool:
    try:
        seen = os.stat(row.path)
        return (str(seen.st_ino), seen.st_mtime_ns) != (row.inode, row.mtime_ns)  # inodes are reused; a folder's size is not stored
    except OSError:
        return not os.path.lexists(row.path)  # a link to what is not there now, a drive that is not mounted


def _near(row: Any, place: Place) -> bool:
    return bool(row.path != place.path and abs(row.bytes - place.bytes) <= METADATA_BYTES)


def _same_listing(record: Record, seen: Record) -> bool:
    """Whether two folders have files of the same names and sizes."""

    def listing(one: Record) -> list[tuple[str, int]]:
        root = str(one.metadata.get("root"))
        return sorted((entry.path.removeprefix(root), entry.bytes) for entry in one.files)

    return "root" in record.metadata and bool(record.files) and listing(record) == listing(seen)
