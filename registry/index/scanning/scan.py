"""Scans folders for models: stat and headers only. What cannot be read is a row in `problems`, never an exception.

record_matcher and scan_write decide which record a file is. Links are followed, loops are not. No file is changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, or_, select

from registry.detect.inspect import inspect, record_of, refuse_partial
from registry.detect.table_facts import TableReader
from registry.errors import BadFile
from registry.formats.quantised.bitsandbytes import MARK
from registry.formats.safetensors_header import read_header_bytes
from registry.index import database as tables
from registry.index import rows
from registry.index.database import Index
from registry.index.scanning.record_matcher import Digest, RecordMatcher, Seen, fingerprint
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.scan_write import mark_missing, upsert
from registry.index.scanning.walk import Entry, problem_of, walk
from registry.progress import Report, Tick

REPORT_EVERY = 16  # files
BATCH = 200  # files written in one transaction


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
    present: set[str] = set()
    for number, entry in enumerate(walk(folder, embedded, found.problems, known), 1):
        present.add(entry.path)
        seen = _inspect_changed(entry, known, found, reader)
        if seen is not None:
            (changed if entry.path in known else batch).append(seen)
        if len(batch) >= BATCH:
            upsert(index, batch, found, matcher)
            batch = []
        if number % REPORT_EVERY == 0 or entry.folder:
            report(Tick("scan", number, 0, os.path.basename(entry.path)))
    upsert(index, batch, found, matcher)
    upsert(index, changed, found, matcher)  # last: files that were in these places may have been matched elsewhere
    mark_missing(index, [row for path, row in known.items() if path not in present], found, matcher)
    return found


# --- one entry


def _known_below(connection: Connection, folder: Path) -> dict[str, Any]:
    """Path -> location row of everything known below a folder."""
    table = tables.location
    beginning = str(folder).rstrip("/\\") + os.sep
    end = beginning[:-1] + chr(ord(beginning[-1]) + 1)
    where = or_(table.c.path == str(folder), (table.c.path >= beginning) & (table.c.path < end))
    return {row.path: row for row in connection.execute(select(table).where(where))}


def _inspect_changed(entry: Entry, known: dict[str, Any], found: ScanReport, reader: TableReader) -> Seen | None:
    """The entry inspected, when it is new or changed; otherwise it is counted."""
    row = known.get(entry.path)
    try:
        folder_print = _folder_fingerprint(entry.path) if entry.folder else None
        if row is not None and not row.missing and _is_unchanged(entry.stat, folder_print, row):
            found.unchanged += 1
            found.ids[row.record_id] = None
            return None
        if entry.folder:
            refuse_partial(Path(entry.path))
        if entry.folder or entry.path.lower().endswith(".gguf"):
            return Seen(rows.place_of(entry.path, entry.stat, fingerprint=folder_print), inspect(entry.path))
        path = Path(entry.path)
        size, raw = read_header_bytes(path)
        place = rows.place_of(entry.path, entry.stat, fingerprint=fingerprint(raw))
        if MARK.encode() in raw:  # the shapes of the model are in the file's data
            return Seen(place, inspect(path))
        metadata, table = reader.read(path, size, raw)
        return Seen(place, record_of(path, size, metadata, table, beside=entry.beside))
    except Exception as error:  # whatever one file raises is that file's problem
        found.problems.append(problem_of(entry.path, error))
    return None


def _is_unchanged(seen: os.stat_result, folder_print: str | None, row: Any) -> bool:
    """Whether the stat is unchanged. For a folder that is the fingerprint of its files."""
    if folder_print is not None:
        return bool(folder_print == row.fingerprint)
    times = seen.st_mtime_ns == row.mtime_ns and seen.st_ctime_ns == row.ctime_ns
    return bool(times and seen.st_size == row.bytes and str(seen.st_ino) == row.inode)


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
