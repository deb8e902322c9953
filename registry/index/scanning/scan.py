"""Scans folders for models: stat and headers only. What cannot be read is a row in `problems`, never an exception.

record_matcher and scan_write decide which record a file is. Links are followed, loops are not. No file is changed.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, or_, select

from registry.detect.table_facts import TableReader
from registry.errors import BadFile
from registry.index import database as tables
from registry.index.database import Index
from registry.index.run_checkpoints import checkpoint_with
from registry.index.scanning.inspecting import TOGETHER, Failed, folder_fingerprint, inspected
from registry.index.scanning.record_matcher import Digest, RecordMatcher, Seen
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.scan_write import mark_missing, upsert
from registry.index.scanning.walk import Entry, Problem, problem_of, walk
from registry.progress import Report, Tick

REPORT_EVERY = 16  # files
BATCH = 200  # records written in one transaction; all of them are in memory until then
FILES = 1000  # of these records at most: a diffusers folder has dozens


def scan(index: Index, folder: Path, *, embedded: Collection[Path], report: Report, digest: Digest) -> ScanReport:
    """Update the index from the files below a folder. Raises BadFile when the folder itself cannot be read."""
    if not folder.is_dir():
        raise BadFile(folder, "unreadable", "is no folder. Give a folder to scan, or `registry add` a file.")
    found = ScanReport(index)
    with index.reading() as connection:
        known = _known_below(connection, folder)
    files = _Files(index, found, RecordMatcher(index, digest))
    for number, entry in enumerate(walk(folder, embedded, files.unread, known.files), 1):
        path, seen, is_folder, _ = entry
        row = known.files.pop(path, None)  # what is left in the end was not seen
        if row is not None and _is_unchanged(path, seen, row, known, is_folder=is_folder):
            found.unchanged += 1
            found.ids[row[1]] = None
        else:
            files.put(entry, is_new=row is None)
        if number % REPORT_EVERY == 0 or is_folder:
            report(Tick("scan", number, 0, os.path.basename(path)))
    files.write_all()
    mark_missing(index, [*known.files], found, files.matcher)
    return found


class _Files:
    """The new and changed files of a scan: inspected some at a time, and written some at a time."""

    def __init__(self, index: Index, found: ScanReport, matcher: RecordMatcher) -> None:
        self._index, self._found, self._reader = index, found, TableReader()
        self.matcher = matcher
        self.unread: list[Problem] = []  # what the walk could not read since the last entry
        self._waiting: list[Entry] = []
        self._new: set[str] = set()  # of those that wait
        self._batch: list[Seen] = []
        self._changed: list[Seen] = []

    def put(self, entry: Entry, *, is_new: bool) -> None:
        """Take a file or folder."""
        if self.unread or entry.folder:  # problems keep the order of the walk, and folders are large
            self._inspect()
        self._waiting.append(entry)
        if is_new:
            self._new.add(entry.path)
        if entry.folder or len(self._waiting) == TOGETHER:
            self._inspect()

    def _inspect(self) -> None:
        for entry, seen in inspected(self._waiting, self._reader):
            if isinstance(seen, Failed):
                self._failed(entry, seen.error)
            else:
                (self._batch if entry.path in self._new else self._changed).append(seen)
            if len(self._batch) >= BATCH or (entry.folder and sum(len(one.record.files) for one in self._batch) >= FILES):
                upsert(self._index, self._batch, self._found, self.matcher)
                self._batch = []
        self._waiting, self._new = [], set()
        self._found.problems += self.unread
        self.unread.clear()

    def _failed(self, entry: Entry, error: Exception) -> None:
        """What an entry raised is its problem; training's state beside a checkpoint's adapter is none."""
        own = checkpoint_with(Path(entry.path)) if isinstance(error, BadFile) and error.code == "pickle" else None
        if own is not None:
            self._found.checkpoints.append(own)
        else:
            self._found.problems.append(problem_of(entry.path, error))

    def write_all(self) -> None:
        """Inspect and write what is left."""
        self._inspect()
        upsert(self._index, self._batch, self._found, self.matcher)
        upsert(self._index, self._changed, self._found, self.matcher)  # last: files that were in these places may be matched elsewhere


# --- one entry


Row = tuple[str, str, str, int, int, int, int]  # path, record, inode, mtime_ns, ctime_ns, bytes, whether it was missing
BYTES = itemgetter(5)  # 0: of a folder, or of an empty file


class _Known(NamedTuple):
    """What the index knows below a folder."""

    files: dict[str, Row]
    prints: dict[str, str | None]  # path -> fingerprint, of folders


PLACES = tables.location.c
BELOW = or_(PLACES.path == bindparam("folder"), (PLACES.path >= bindparam("begin")) & (PLACES.path < bindparam("end")))
STATS = select(*(PLACES[name] for name in ("path", "record_id", "inode", "mtime_ns", "ctime_ns", "bytes", "missing"))).where(BELOW)
PRINTS = select(PLACES.path, PLACES.fingerprint).where(BELOW, PLACES.bytes == 0)


def _known_below(connection: Connection, folder: Path) -> _Known:
    """Everything known below a folder. The rows are read as the driver gives them: there is one for every file of a library."""
    begin = os.path.join(folder, "")
    below = {"folder": str(folder), "begin": begin, "end": begin[:-1] + chr(ord(begin[-1]) + 1)}
    files = {row[0]: row for row in connection.execute(STATS, below).cursor.fetchall()}
    if all(map(BYTES, files.values())):
        return _Known(files, {})
    return _Known(files, {row.path: row.fingerprint for row in connection.execute(PRINTS, below)})


def _is_unchanged(path: str, seen: os.stat_result, row: Row, known: _Known, *, is_folder: bool) -> bool:
    """Whether the index knows the file with this stat. For a folder that is the fingerprint of its files."""
    _, _, inode, mtime_ns, ctime_ns, size, missing = row
    if missing:
        return False
    if is_folder:
        return folder_fingerprint(path) == known.prints.get(path)
    return mtime_ns == seen.st_mtime_ns and ctime_ns == seen.st_ctime_ns and size == seen.st_size and inode == str(seen.st_ino)


__all__ = ["ScanReport", "scan"]
