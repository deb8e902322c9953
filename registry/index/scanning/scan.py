"""Scans folders for models: stat and headers only. What cannot be read is a row in `problems`, never an exception.

record_matcher and scan_write decide which record a file is. Links are followed, loops are not. No file is changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, or_, select

from registry.detect.inspect import inspect, record_of, refuse_partial
from registry.detect.table_facts import TableReader
from registry.errors import BadFile
from registry.formats.quantised.model_shapes import MARKS
from registry.formats.safetensors_header import read_header_bytes
from registry.index import database as tables
from registry.index import rows
from registry.index.database import Index
from registry.index.run_checkpoints import checkpoint_with
from registry.index.scanning.record_matcher import Digest, RecordMatcher, Seen, fingerprint
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.scan_write import mark_missing, upsert
from registry.index.scanning.walk import Entry, problem_of, walk
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
    matcher, reader = RecordMatcher(index, digest), TableReader()
    batch: list[Seen] = []
    changed: list[Seen] = []
    for number, entry in enumerate(walk(folder, embedded, found.problems, known.files), 1):
        row = known.files.pop(entry.path, None)  # what is left in the end was not seen
        if row is not None and _is_unchanged(entry, row, known):
            found.unchanged += 1
            found.ids[row[1]] = None
        elif (seen := _inspect(entry, found, reader)) is not None:
            (changed if row is not None else batch).append(seen)
        if len(batch) >= BATCH or (entry.folder and sum(len(one.record.files) for one in batch) >= FILES):
            upsert(index, batch, found, matcher)
            batch = []
        if number % REPORT_EVERY == 0 or entry.folder:
            report(Tick("scan", number, 0, os.path.basename(entry.path)))
    upsert(index, batch, found, matcher)
    upsert(index, changed, found, matcher)  # last: files that were in these places may have been matched elsewhere
    mark_missing(index, [*known.files], found, matcher)
    return found


# --- one entry


Row = tuple[str, str, str, int, int, int]  # path, record, inode, mtime_ns, ctime_ns, bytes


class _Known(NamedTuple):
    """What the index knows below a folder."""

    files: dict[str, Row]
    prints: dict[str, str | None]  # path -> fingerprint, of folders
    missing: set[str]


def _known_below(connection: Connection, folder: Path) -> _Known:
    """Everything known below a folder. The rows are read as the driver gives them: there is one for every file of a library."""
    table = tables.location.c
    beginning = str(folder).rstrip("/\\") + os.sep
    end = beginning[:-1] + chr(ord(beginning[-1]) + 1)
    below = or_(table.path == str(folder), (table.path >= beginning) & (table.path < end))
    stat = select(table.path, table.record_id, table.inode, table.mtime_ns, table.ctime_ns, table.bytes).where(below)
    files = {row[0]: row for row in connection.execute(stat).cursor.fetchall()}
    others = select(table.path, table.missing, table.fingerprint).where(below, or_(table.missing == 1, table.bytes == 0))
    found = connection.execute(others).all()
    return _Known(files, {path: fingerprint for path, _, fingerprint in found}, {path for path, missing, _ in found if missing})


def _is_unchanged(entry: Entry, row: Row, known: _Known) -> bool:
    """Whether the index knows the file with this stat. For a folder that is the fingerprint of its files."""
    path, seen, folder, _ = entry
    if path in known.missing:
        return False
    if folder:
        return _folder_fingerprint(path) == known.prints.get(path)
    _, _, inode, mtime_ns, ctime_ns, size = row
    return mtime_ns == seen.st_mtime_ns and ctime_ns == seen.st_ctime_ns and size == seen.st_size and inode == str(seen.st_ino)


def _inspect(entry: Entry, found: ScanReport, reader: TableReader) -> Seen | None:
    """The entry inspected; None where that is a problem."""
    try:
        folder_print = _folder_fingerprint(entry.path) if entry.folder else None
        if entry.folder:
            refuse_partial(Path(entry.path))
        if entry.folder or entry.path.lower().endswith(".gguf"):
            return Seen(rows.place_of(entry.path, entry.stat, fingerprint=folder_print), inspect(entry.path))
        path = Path(entry.path)
        size, raw = read_header_bytes(path)
        place = rows.place_of(entry.path, entry.stat, fingerprint=fingerprint(raw))
        if any(mark.encode() in raw for mark in MARKS):  # the names and shapes of the model are elsewhere in the file
            return Seen(place, inspect(path))
        metadata, table = reader.read(path, size, raw)
        return Seen(place, record_of(path, size, metadata, table, beside=entry.beside))
    except Exception as error:  # whatever one file raises is that file's problem
        own = checkpoint_with(Path(entry.path)) if isinstance(error, BadFile) and error.code == "pickle" else None
        if own is not None:
            found.checkpoints.append(own)
        else:
            found.problems.append(problem_of(entry.path, error))
    return None


def _folder_fingerprint(path: str) -> str:
    """A hash of the stat of every file below a diffusers folder."""
    digest = hashlib.sha256()
    for root, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            try:
                seen = os.stat(os.path.join(root, name))
            except OSError:
                continue
            line = f"{os.path.relpath(os.path.join(root, name), path)}\0{seen.st_size}\0{seen.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


__all__ = ["ScanReport", "scan"]
