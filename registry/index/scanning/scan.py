"""Walks folders for models: stat and headers only. What cannot be read is a row in `problems`, never a crash.

Which record a file is, registry/settle decides. Links are followed, loops are not. Nothing is moved, changed or deleted.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, or_, select

from registry.detect.inspect import inspect, record_of
from registry.detect.table_facts import TableReader
from registry.errors import BadFile, LoomError
from registry.formats.safetensors_header import read_header_bytes
from registry.index import database as tables
from registry.index import rows
from registry.index.database import Index
from registry.index.scanning.record_matcher import Digest, Places, Seen, fingerprint
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.scan_write import mark_missing, upsert
from registry.index.scanning.walk import Entry, Problem, walk
from registry.progress import Report, Tick

TOLD_EVERY = 16  # files
BATCH = 200  # files written in one transaction


def scan(index: Index, folder: Path, *, pocket: Path, report: Report, digest: Digest) -> ScanReport:
    """Bring the index up to date with what lies below a folder. Raises BadFile when the folder itself cannot be read."""
    if not folder.is_dir():
        raise BadFile(folder, "unreadable", "is no folder. Give a folder to scan, or `registry add` a file.")
    found = ScanReport(index)
    with index.reading() as connection:
        known = _known_below(connection, folder)
    places, reader = Places(index, digest), TableReader()
    batch: list[Seen] = []
    changed: list[Seen] = []
    there: set[str] = set()
    for number, entry in enumerate(walk(folder, pocket, found.problems, known), 1):
        there.add(entry.path)
        seen = _look(entry, known, found, reader)
        if seen is not None:
            (changed if entry.path in known else batch).append(seen)
        if len(batch) >= BATCH:
            upsert(index, batch, found, places)
            batch = []
        if number % TOLD_EVERY == 0 or entry.folder:
            report(Tick("scan", number, 0, os.path.basename(entry.path)))
    upsert(index, batch, found, places)
    upsert(index, changed, found, places)  # last: what was in these places may have been found elsewhere
    mark_missing(index, [row for path, row in known.items() if path not in there], found, places)
    return found


# --- looking at one


def _known_below(connection: Connection, folder: Path) -> dict[str, Any]:
    """Path -> location row of everything known below a folder."""
    table = tables.location
    beginning = str(folder).rstrip("/\\") + os.sep
    end = beginning[:-1] + chr(ord(beginning[-1]) + 1)
    where = or_(table.c.path == str(folder), (table.c.path >= beginning) & (table.c.path < end))
    return {row.path: row for row in connection.execute(select(table).where(where))}


def _look(entry: Entry, known: dict[str, Any], found: ScanReport, reader: TableReader) -> Seen | None:
    """The entry inspected, when it is new or changed; else it is counted here."""
    row = known.get(entry.path)
    try:
        print_of_folder = _folder_fingerprint(entry.path) if entry.folder else None
        if row is not None and not row.missing and _is_unchanged(entry.stat, print_of_folder, row):
            found.unchanged += 1
            found.ids[row.record_id] = None
            return None
        if entry.folder or entry.path.lower().endswith(".gguf"):
            return Seen(rows.place_of(entry.path, entry.stat, fingerprint=print_of_folder), inspect(entry.path))
        path = Path(entry.path)
        size, raw = read_header_bytes(path)
        metadata, table = reader.read(path, size, raw)
        place = rows.place_of(entry.path, entry.stat, fingerprint=fingerprint(raw))
        return Seen(place, record_of(path, size, metadata, table, beside=entry.beside))
    except BadFile as error:
        found.problems.append(Problem(str(error.path), error.code, error.message))
    except (LoomError, OSError, ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError) as error:
        found.problems.append(Problem(entry.path, "unknown-format", f"It could not be understood: {type(error).__name__}: {error}."))
    return None


def _is_unchanged(seen: os.stat_result, print_of_folder: str | None, row: Any) -> bool:
    """Whether the system says that nothing changed. A folder's own times say little: its files' do."""
    if print_of_folder is not None:
        return bool(print_of_folder == row.fingerprint)
    times = seen.st_mtime_ns == row.mtime_ns and seen.st_ctime_ns == row.ctime_ns
    return bool(times and seen.st_size == row.bytes and str(seen.st_ino) == row.inode)


def _folder_fingerprint(path: str) -> str:
    """One word for the stat of every file below a diffusers folder."""
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
            told = f"{os.path.relpath(os.path.join(root, name), path)}\0{seen.st_size}\0{seen.st_mtime_ns}\n"
            digest.update(told.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


__all__ = ["ScanReport", "scan"]
