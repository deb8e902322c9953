"""Where models lie and lay: by that a file that moved, was swapped, copied or edited, or is linked twice, is known again."""

from __future__ import annotations

import os
from collections.abc import Callable
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
WEIGHTS_BUDGET = 2 << 30  # bytes a scan reads to find out whether new files are old ones with other metadata
METADATA_BYTES = 4 << 20  # by how much an edit of the metadata, thumbnails and all, is taken to change a file's size
WEIGHTS = ("kind", "dtype", "rank", "algorithms", "components", "dialect")  # what an edit of the metadata leaves as it is


@dataclass(frozen=True)
class Seen:
    """A file or folder that is new or has changed, inspected and not yet written."""

    place: Place
    record: Record


def fingerprint(raw: bytes) -> str:
    """The one word that a safetensors header is known again by: its blake3."""
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


class Places:
    """Where records lie or lay, read once a scan when the first unknown file turns up."""

    def __init__(self, index: Index, digest: Digest) -> None:
        self._index = index
        self.digest = digest
        self._rows: list[Any] | None = None
        self._paths: dict[str, Any] = {}
        self._left: dict[str, list[Any]] | None = None
        self._left_by_bytes: dict[int, list[Any]] | None = None
        self._lost: dict[str, Record] | None = None
        self._lost_by_weights: dict[tuple[Any, ...], list[Record]] | None = None
        self._by_look: dict[tuple[int, str], list[Any]] | None = None
        self._budget = WEIGHTS_BUDGET
        self._by_inode: dict[tuple[str, str], tuple[str, str]] = {}  # device, inode -> record, path
        self.claimed: set[str] = set()  # records whose file this scan found elsewhere

    def _read(self) -> list[Any]:
        if self._rows is None:
            with self._index.reading() as connection:
                self._rows = list(connection.execute(select(tables.location)))
            self._paths = {row.path: row for row in self._rows}
            for row in self._rows:
                self._by_inode.setdefault((row.device, row.inode), (row.record_id, row.path))
        return self._rows

    def copies_of(self, row: Any) -> list[str]:
        """Records with a file of the same header and size in another place, which is still there."""
        self._read()
        if self._by_look is None:
            self._by_look = {}
            for known in self._rows or ():
                if known.fingerprint is not None:
                    self._by_look.setdefault((known.bytes, known.fingerprint), []).append(known)
        alike = self._by_look.get((row.bytes, row.fingerprint), [])
        return [one.record_id for one in alike if one.record_id != row.record_id and os.path.isfile(one.path)]

    def left(self) -> dict[str, list[Any]]:
        """Record -> its places in which nothing lies any more, or another file."""
        if self._left is None:
            self._left = {}
            for row in self._read():
                if _is_left(row):
                    self._left.setdefault(row.record_id, []).append(row)
        return self._left

    def _left_of(self, size: int) -> list[Any]:
        """The left places of files of that many bytes; all folders have 0."""
        if self._left_by_bytes is None:
            self._left_by_bytes = {}
            for row in (row for found in self.left().values() for row in found):
                self._left_by_bytes.setdefault(row.bytes, []).append(row)
        return self._left_by_bytes.get(size, [])

    def _lost_records(self) -> dict[str, Record]:
        """The records that left a place, by id."""
        if self._lost is None:
            with self._index.reading() as connection:
                self._lost = {record.id: record for record in records.load(connection, list(self.left()))} if self.left() else {}
        return self._lost

    def twin_of(self, place: Place) -> str | None:
        """The record of the very same file under another path; an inode that was used again is not the same file."""
        self._read()
        record_id, path = self._by_inode.get((place.device, place.inode), (None, ""))
        if record_id is None or path == place.path or not os.path.exists(path):
            return None
        return record_id if rows.place_of(path).signature == place.signature else None

    def keep(self, place: Place, record_id: str) -> None:
        """Remember what this scan wrote itself."""
        self._by_inode[place.device, place.inode] = (record_id, place.path)

    def chain_of(self, path: str) -> list[str]:
        """A path and those whose files changed places with it: a's lies in b, b's in c, c's in a."""
        by_inode = {row.inode: row.path for found in self.left().values() for row in found}
        chain = [path]
        while (following := by_inode.get(str(os.stat(chain[-1]).st_ino))) not in (None, *chain) and os.path.isfile(str(following)):
            chain.append(str(following))
        return chain

    def home_of(self, seen: Seen) -> tuple[str | None, str]:
        """(record this is, how it is counted): one that left its place and whose file this is."""
        place = seen.place
        if not self.left():
            return None, "added"
        others = [row for row in self._left_of(place.bytes) if row.path != place.path]
        alike = [row for row in others if row.fingerprint is None or place.fingerprint in (None, row.fingerprint)]
        same = others if "root" in seen.record.metadata else alike  # a folder's fingerprint says little: that of its files' sizes and times
        moved = {row.record_id for row in same if (row.inode, row.device, row.mtime_ns) == (place.inode, place.device, place.mtime_ns)}
        home = moved.pop() if len(moved) == 1 else None
        if home is None and not self._looks_the_same(place):
            home = self._by_content(seen, alike) or (None if place.path in self._paths else self._by_weights(seen))
        if home is None:
            return None, "added"
        self.claimed.add(home)
        return home, "relinked"

    def _by_content(self, seen: Seen, alike: list[Any]) -> str | None:
        """Of the records that left a place and have this header and size: the one of the same hash, or the only one of the same time."""
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
        timed -= set(hashed) | self.claimed
        return timed.pop() if len(timed) == 1 else None

    def _by_weights(self, seen: Seen) -> str | None:
        """The one that left its place and whose metadata alone was edited: its tensors have the same hash."""
        place, told = seen.place, tuple(getattr(seen.record, name) for name in WEIGHTS)
        if "root" in seen.record.metadata:
            return None
        lost = [record for record in self._lost_like(told) if any(_near(row, place) for row in self.left()[record.id])]
        if not lost or place.bytes > self._budget:
            return None
        self._budget -= place.bytes
        mine = self._hash(seen.record)
        if mine is None:
            return None
        same = [record.id for record in lost if record.hashes.tensors_sha256 == mine.tensors_sha256 and not self._stayed(record)]
        return same[0] if same else None

    def _lost_like(self, told: tuple[Any, ...]) -> list[Record]:
        """The hashed records that left a place, have these facts and were not found yet."""
        if self._lost_by_weights is None:
            self._lost_by_weights = {}
            for record in self._lost_records().values():
                if record.hashes.tensors_sha256:
                    self._lost_by_weights.setdefault(tuple(getattr(record, name) for name in WEIGHTS), []).append(record)
        return [record for record in self._lost_by_weights.get(told, []) if record.id not in self.claimed]

    def _looks_the_same(self, place: Place) -> bool:
        """Whether a known place has a file of the header, size and time that it had: as a restored backup is."""
        row = self._paths.get(place.path)
        if row is None or row.fingerprint is None:
            return False
        return bool((row.bytes, row.mtime_ns, row.fingerprint) == (place.bytes, place.mtime_ns, place.fingerprint))

    def _stayed(self, record: Record) -> bool:
        """Whether the weights are still in their place: it was written anew, as an edit of the metadata does."""
        there = (replace(record, files=(FileEntry(path=row.path, bytes=row.bytes),)) for row in self.left()[record.id])
        found = (self._hash(one) for one in there if os.path.isfile(str(one.path)))
        return any(one is not None and one.tensors_sha256 == record.hashes.tensors_sha256 for one in found)

    def _hash(self, record: Record) -> Hashes | None:
        try:
            return self.digest(record)
        except (BadFile, OSError):
            return None


def _is_left(row: Any) -> bool:
    try:
        seen = os.stat(row.path)
        return (str(seen.st_ino), seen.st_mtime_ns) != (row.inode, row.mtime_ns)  # an inode is given again, a folder's size is not kept
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
