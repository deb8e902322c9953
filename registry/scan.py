"""Walks folders for models: stat and headers only. What cannot be read is a row in `problems`, never a crash.

A file that moved is known again by its inode, or by header and content when its old place is empty. Links are followed, loops
are not. Nothing is moved, changed or deleted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, or_, select

from registry import compose, rows
from registry import index as tables
from registry.detect import inspect, inspect_header
from registry.digests import cached_hashes
from registry.errors import BadFile, LoomError
from registry.header import parse_header, read_header_bytes
from registry.index import Index
from registry.progress import Report, Tick
from registry.record import Hashes, Record
from registry.rows import Place

MODELS = (".safetensors", ".sft", ".gguf")  # read and registered
NAMED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")  # said to be there, not read
BATCH = 200  # files written in one transaction
Digest = Callable[[str], Hashes]


@dataclass(frozen=True)
class Problem:
    """Something that could not be registered, and why."""

    path: str
    code: str
    message: str


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


@dataclass(frozen=True)
class Seen:
    """A file or folder that is new or has changed, inspected and not yet written."""

    place: Place
    record: Record


def scan(index: Index, folder: Path, *, pocket: Path, report: Report, digest: Digest) -> ScanReport:
    """Bring the index up to date with what lies below a folder. Raises BadFile when the folder itself cannot be read."""
    if not folder.is_dir():
        raise BadFile(folder, "unreadable", "is no folder. Give a folder to scan, or `registry add` a file.")
    found = ScanReport(index)
    with index.reading() as connection:
        known = _known_below(connection, folder)
    places = Places(index, digest)
    batch: list[Seen] = []
    there: set[str] = set()
    for number, entry in enumerate(_walk(folder, pocket, found.problems), 1):
        there.add(entry.path)
        seen = _look(entry, known, found)
        if seen is not None:
            batch.append(seen)
        if len(batch) >= BATCH:
            _write(index, batch, found, places)
            batch = []
        report(Tick("scan", number, 0, os.path.basename(entry.path)))
    _write(index, batch, found, places)
    _settle_missing(index, known, there, found)
    return found


# --- walking


@dataclass(frozen=True)
class Entry:
    """A model's path with its stat; a diffusers folder counts as one."""

    path: str
    stat: os.stat_result
    folder: bool


def _walk(folder: Path, pocket: Path, problems: list[Problem]) -> Iterator[Entry]:
    """Every model below a folder, sorted by name; hidden and unfinished things are passed over."""
    visited: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            seen = os.stat(here)
            if (seen.st_dev, seen.st_ino) in visited or here == str(pocket):
                continue
            visited.add((seen.st_dev, seen.st_ino))
            with os.scandir(here) as listing:
                entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(_unreadable(here, error))
            continue
        names = {entry.name for entry in entries}
        if "model_index.json" in names:
            yield Entry(here, seen, True)
            continue
        folders = []
        for entry in entries:
            kind = _entry_kind(entry)
            if kind == "folder":
                folders.append(entry.path)
            elif kind == "file":
                yield from _file(entry, problems)
        waiting.extend(reversed(folders))


def _entry_kind(entry: os.DirEntry[str]) -> str:
    try:
        return "folder" if entry.is_dir() else "file"
    except OSError:  # a loop of links
        return "file"


def _file(entry: os.DirEntry[str], problems: list[Problem]) -> Iterator[Entry]:
    ending = os.path.splitext(entry.name)[1].lower()
    if ending not in MODELS and ending not in NAMED:
        return
    try:
        entry.path.encode("utf-8")
        seen = entry.stat()
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(0, "it is a pipe, a socket or a device")
    except UnicodeEncodeError:
        shown = os.fsencode(entry.path).decode("utf-8", "replace")
        problems.append(Problem(shown, "unreadable", "Its name is not valid Unicode. Rename it to register it."))
        return
    except OSError as error:
        problems.append(_unreadable(entry.path, error))
        return
    yield Entry(entry.path, seen, False)


def _unreadable(path: str, error: OSError) -> Problem:
    shown = os.fsencode(path).decode("utf-8", "replace")
    return Problem(shown, "unreadable", f"It cannot be read: {error.strerror or error}.")


# --- looking at one


def _known_below(connection: Connection, folder: Path) -> dict[str, Any]:
    """Path -> location row of everything known below a folder."""
    table = tables.location
    beginning = str(folder).rstrip("/\\") + os.sep
    end = beginning[:-1] + chr(ord(beginning[-1]) + 1)
    where = or_(table.c.path == str(folder), (table.c.path >= beginning) & (table.c.path < end))
    return {row.path: row for row in connection.execute(select(table).where(where))}


def _look(entry: Entry, known: dict[str, Any], found: ScanReport) -> Seen | None:
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
        size, raw = read_header_bytes(Path(entry.path))
        header = parse_header(raw, path=Path(entry.path), file_bytes=size)
        place = replace(place, fingerprint=hashlib.sha256(raw).hexdigest())
        return Seen(place, inspect_header(Path(entry.path), header))
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
