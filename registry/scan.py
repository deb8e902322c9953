"""Walks folders for models: stat and headers only. What cannot be read is a row in `problems`, never a crash.

A file that moved is known again by its inode, or by header and content when its old place is empty. Links are followed, loops
are not. Nothing is moved, changed or deleted.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, or_, select

from registry import compose, rows
from registry import index as tables
from registry.detect import inspect, record_of
from registry.digests import cached_hashes
from registry.errors import BadFile, LoomError
from registry.header import read_header_bytes
from registry.index import Index
from registry.places import Digest, Places, Seen
from registry.progress import Report, Tick
from registry.record import Record
from registry.rows import Place
from registry.traits import TableReader
from registry.walk import Entry, Problem, walk

BATCH = 200  # files written in one transaction


@dataclass
class ScanReport:
    """What a scan did: counts, problems, and the records of what it saw."""

    index: Index
    added: int = 0
    updated: int = 0
    relinked: int = 0
    unchanged: int = 0
    missing: int = 0
    problems: list[Problem] = field(default_factory=list)
    ids: dict[str, None] = field(default_factory=dict)

    def records(self) -> list[Record]:
        """The Records of everything the scan saw, in the order of the index."""
        with self.index.reading() as connection:
            return compose.load(connection, self.ids)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "added": self.added,
            "updated": self.updated,
            "relinked": self.relinked,
            "unchanged": self.unchanged,
            "missing": self.missing,
            "problems": [vars(problem) for problem in self.problems],
            "records": [record.to_json() for record in self.records()],
        }


def scan(index: Index, folder: Path, *, pocket: Path, report: Report, digest: Digest) -> ScanReport:
    """Bring the index up to date with what lies below a folder. Raises BadFile when the folder itself cannot be read."""
    if not folder.is_dir():
        raise BadFile(folder, "unreadable", "is no folder. Give a folder to scan, or `registry add` a file.")
    found = ScanReport(index)
    with index.reading() as connection:
        known = _known_below(connection, folder)
    places, reader = Places(index, digest), TableReader()
    batch: list[Seen] = []
    there: set[str] = set()
    for number, entry in enumerate(walk(folder, pocket, found.problems), 1):
        there.add(entry.path)
        seen = _look(entry, known, found, reader)
        if seen is not None:
            batch.append(seen)
        if len(batch) >= BATCH:
            _write(index, batch, found, places)
            batch = []
        report(Tick("scan", number, 0, os.path.basename(entry.path)))
    _write(index, batch, found, places)
    _settle_missing(index, known, there, found)
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
    place = rows.place_of(entry.path, entry.stat)
    try:
        if entry.folder:
            place = replace(place, fingerprint=_folder_fingerprint(entry.path))
        if row is not None and not row.missing and _same_place(place, row):
            found.unchanged += 1
            found.ids[row.record_id] = None
            return None
        if entry.folder or entry.path.lower().endswith(".gguf"):
            return Seen(place, inspect(entry.path))
        path = Path(entry.path)
        size, raw = read_header_bytes(path)
        metadata, traits = reader.read(path, size, raw)
        place = replace(place, fingerprint=hashlib.sha256(raw).hexdigest())
        return Seen(place, record_of(path, size, metadata, traits, beside=entry.beside))
    except BadFile as error:
        found.problems.append(Problem(str(error.path), error.code, error.message))
    except (LoomError, OSError, ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError) as error:
        found.problems.append(Problem(entry.path, "unknown-format", f"It could not be understood: {type(error).__name__}: {error}."))
    return None


def _same_place(place: Place, row: Any) -> bool:
    """Whether the system says that nothing changed. A folder's own times say little: its files' do."""
    if place.fingerprint is not None:
        return bool(place.fingerprint == row.fingerprint)
    return place.signature == (row.bytes, row.device, row.inode, row.mtime_ns, row.ctime_ns)


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


# --- writing


def _write(index: Index, batch: list[Seen], found: ScanReport, places: Places) -> None:
    """Write what was seen, in one transaction. What another process wrote meanwhile is looked at again."""
    if not batch:
        return
    homes = {seen.place.path: places.home_of(seen) for seen in batch}
    with index.writing() as connection:
        known = rows.ids_by_paths(connection, [seen.place.path for seen in batch])
        alive = rows.ids_that_are(connection, [home for home, _ in homes.values() if home is not None])
        hashes = cached_hashes(connection, [seen.place for seen in batch if "root" not in seen.record.metadata])
        fresh: list[tuple[Record, Place]] = []
        for seen in batch:
            home, how = homes[seen.place.path]
            if seen.place.path in known:
                home, how = known[seen.place.path], "updated"
            elif home is None or home not in alive:  # or forgotten by another process
                twin = places.twin_of(seen.place)
                home, how = (twin, "unchanged") if twin else (rows.new_id(), "added")
            places.keep(seen.place, home)
            setattr(found, how, getattr(found, how) + 1)
            found.ids[home] = None
            if how == "added":
                fresh.append((replace(seen.record, id=home), seen.place))
            elif how == "unchanged":  # another link to a file that has its record
                rows.put_place(connection, home, seen.place, turn=0)
            else:
                rows.put_record(connection, replace(seen.record, id=home))
                rows.put_place(connection, home, seen.place)
                rows.drop_content(connection, home)
            if how != "unchanged" and seen.place.path in hashes:
                rows.put_content(connection, home, *hashes[seen.place.path])
        rows.put_fresh(connection, fresh)


def _settle_missing(index: Index, known: dict[str, Any], there: set[str], found: ScanReport) -> None:
    """Say which known places are empty. A place whose record was found elsewhere is dropped."""
    gone = [path for path in known if path not in there and not os.path.lexists(path)]
    if not gone:
        return
    with index.writing() as connection:
        for path in gone:
            others = select(tables.location.c.path).where(
                tables.location.c.record_id == known[path].record_id, tables.location.c.path != path
            )
            if any(os.path.lexists(row.path) for row in connection.execute(others)):
                connection.execute(delete(tables.location).where(tables.location.c.path == path))
            else:
                found.missing += 1
                rows.mark_missing(connection, [path], True)
