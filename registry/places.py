"""Where models lie and lay: by that a file that moved, or is linked twice, is known again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from registry import compose, rows
from registry import index as tables
from registry.index import Index
from registry.record import Hashes, Record
from registry.rows import Place

Digest = Callable[[str], Hashes]


@dataclass(frozen=True)
class Seen:
    """A file or folder that is new or has changed, inspected and not yet written."""

    place: Place
    record: Record


class Places:
    """Where records lie or lay, read once a scan when the first unknown file turns up."""

    def __init__(self, index: Index, digest: Digest) -> None:
        self._index = index
        self._digest = digest
        self._rows: list[Any] | None = None
        self._gone: list[Any] | None = None
        self._by_inode: dict[tuple[str, str], tuple[str, str]] = {}  # device, inode -> record, path

    def _read(self) -> list[Any]:
        if self._rows is None:
            with self._index.reading() as connection:
                self._rows = list(connection.execute(select(tables.location)))
            for row in self._rows:
                self._by_inode.setdefault((row.device, row.inode), (row.record_id, row.path))
        return self._rows

    def _empty(self) -> list[Any]:
        """Places that nothing lies in any more."""
        if self._gone is None:
            self._gone = [row for row in self._read() if not os.path.lexists(row.path)]
        return self._gone

    def twin_of(self, place: Place) -> str | None:
        """The record of the very same file under another path; an inode that was used again is not the same file."""
        self._read()
        record_id, path = self._by_inode.get((place.device, place.inode), (None, ""))
        if record_id is None or not os.path.exists(path):
            return None
        return record_id if rows.place_of(path).signature == place.signature else None

    def keep(self, place: Place, record_id: str) -> None:
        """Remember what this scan wrote itself."""
        self._by_inode[place.device, place.inode] = (record_id, place.path)

    def home_of(self, seen: Seen) -> tuple[str | None, str]:
        """(record this is, how it is counted): one that lost its place and whose file this is."""
        place, empty = seen.place, self._empty()
        if not empty:
            return None, "added"
        same = [
            row
            for row in empty
            if (row.inode, row.device, row.bytes, row.mtime_ns) == (place.inode, place.device, place.bytes, place.mtime_ns)
        ]
        moved = {row.record_id for row in same}
        if len(moved) == 1:
            return moved.pop(), "relinked"
        return self._by_content(seen, [row for row in empty if row.fingerprint == place.fingerprint and row.bytes == place.bytes])

    def _by_content(self, seen: Seen, alike: list[Any]) -> tuple[str | None, str]:
        """Among records that lost their file and have this very header: the one of the same hash, or the only one of the same time."""
        ids = {row.record_id for row in alike}
        if not ids:
            return None, "added"
        with self._index.reading() as connection:
            hashed = {record.id: record.hashes.sha256 for record in compose.load(connection, ids) if record.hashes.sha256}
        if hashed and "root" not in seen.record.metadata:
            mine = self._digest(seen.place.path).sha256
            same = [record_id for record_id, sha256 in hashed.items() if sha256 == mine]
            if same:
                return same[0], "relinked"
        timed = {row.record_id for row in alike if row.record_id not in hashed and row.mtime_ns == seen.place.mtime_ns}
        return (timed.pop(), "relinked") if len(timed) == 1 else (None, "added")
