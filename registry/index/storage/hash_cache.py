"""Hashes of registered files, cached until the stat of a file changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import Connection, delete, insert

from registry.errors import BadFile, WriteFailed
from registry.files.write_failure import NOT_TAKEN
from registry.formats.hashing import folder_sha256, hash_file
from registry.formats.model_folder import folder_files
from registry.index import database as tables
from registry.index.database import Index
from registry.index.rows import Place, ids_that_are, place_of, put_content, select_many
from registry.index.scanning.walk import Problem, problem_of
from registry.progress import Report, Tick, silent
from registry.record import Hashes, Record

AT_ONCE = 50  # files whose hashes are written in one transaction
KEEP_SECONDS = 5.0  # at most between two of them: an interruption loses no more work
Found = tuple[Hashes, dict[str, Any]]  # hashes, and the facts that only reading the whole file shows


class Digests:
    """The hashes of files, kept in an index."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def unchanged(self, record: Record) -> bool:
        """Whether the cache has every file in its current state."""
        with self._index.reading() as connection:
            try:
                places = [place_of(path) for path in hashed_files(record)]
            except OSError:
                return True  # the file is gone: its hash is all that is left
            return len(cached_hashes(connection, places)) == len(places)

    def digest(self, record: Record) -> Hashes:
        """The hashes of a Record, without progress reports."""
        return self.of_record(record, silent)[0]

    def of_record(self, record: Record, report: Report, *, whole: bool = False) -> Found:
        """The hashes of a Record's file, or its folder's own; `whole`: those too that a large file may lack."""
        if "root" not in record.metadata:
            return self.of_file(Path(str(record.path)), report, whole=whole)
        root = Path(str(record.path))
        return folder_hashes(root, {path: self.of_file(Path(path), report)[0].sha256 for path in hashed_files(record)})

    def of_file(self, path: Path, report: Report, *, whole: bool = False) -> Found:
        """(hashes, learned facts) of one file, from the cache while its stat is unchanged."""
        try:
            place = place_of(path)
        except OSError as error:
            raise BadFile(path, "unreadable", f"cannot be read: {error.strerror}.") from error
        with self._index.reading() as connection:
            known = cached_hashes(connection, [place]).get(str(path))
        if known is not None and not (whole and known[0].of_a_file_in_part):
            return known
        hashes, learned = hash_file(path, whole=whole, report=report)
        if place_of(path).signature != place.signature:
            raise BadFile(path, "unreadable", "changed while it was read. Try again when it is finished.")
        try:
            with self._index.writing() as connection:
                cache_hashes(connection, place, hashes, learned)
        except WriteFailed as error:
            if error.errno not in NOT_TAKEN:  # an index that is only read needs no cache
                raise
        return hashes, learned

    def fill(self, records: Sequence[Record], report: Report) -> list[Problem]:
        """Hash all models among the records, storing as it goes; unreadable files are returned as problems."""
        models = [record for record in records if record.kind not in ("dataset", "run")]
        problems: list[Problem] = []
        places = {record.id: place for record in models if (place := _place_if_there(record)) is not None}
        with self._index.reading() as connection:
            known = cached_hashes(connection, places.values())
        fresh: list[tuple[Record, Place | None, Found]] = []
        kept = monotonic()
        for number, record in enumerate(models, 1):
            report(Tick("hash all", number, len(models), record.name))
            place = places.get(record.id)
            cached = known.get(place.path) if place is not None else None
            if cached is not None and cached[0] == record.hashes:
                continue
            try:
                fresh.append((record, None, cached) if cached is not None else (record, *self._read(record, place, report)))
            except (OSError, ValueError, MemoryError, BadFile) as error:  # of this file; the index raises LoomErrors
                problems.append(problem_of(str(record.path), error))
            if len(fresh) >= AT_ONCE or monotonic() - kept > KEEP_SECONDS:
                self._keep(fresh)
                fresh, kept = [], monotonic()
        self._keep(fresh)
        return problems

    def _read(self, record: Record, place: Place | None, report: Report) -> tuple[Place | None, Found]:
        """(the file's place where its hashes are not cached yet, hashes and learned facts)."""
        if "root" in record.metadata:
            return None, self.of_record(record, report)
        path = Path(str(record.path))
        found = hash_file(path, whole=False, report=report)
        if place is None or place_of(path).signature != place.signature:
            raise BadFile(path, "unreadable", "changed while it was read. Try again when it is finished.")
        return place, found

    def _keep(self, fresh: Sequence[tuple[Record, Place | None, Found]]) -> None:
        if not fresh:
            return
        with self._index.writing() as connection:
            there = ids_that_are(connection, [record.id for record, _, _ in fresh])
            for record, place, (hashes, learned) in fresh:
                if place is not None:
                    cache_hashes(connection, place, hashes, learned)
                if record.id in there:
                    put_content(connection, record.id, hashes, learned)

    def remember(self, path: Path, hashes: Hashes, learned: Mapping[str, Any]) -> None:
        """Cache the hashes that a writer computed while it wrote."""
        place = place_of(path)
        with self._index.writing() as connection:
            cache_hashes(connection, place, hashes, learned)


def cached_hashes(connection: Connection, places: Iterable[Place]) -> dict[str, Found]:
    """Path -> (hashes, learned facts) of the files that are cached and unchanged."""
    wanted = list(places)
    known = {
        tuple(getattr(row, name) for name in KEY): row
        for row in select_many(connection, tables.file_hash, tables.file_hash.c.inode, {p.inode for p in wanted})
    }
    found: dict[str, Found] = {}
    for place in wanted:
        row = known.get(tuple(getattr(place, name) for name in KEY))
        if row is not None:
            found[place.path] = (Hashes(**json.loads(row.hashes)), json.loads(row.learned))
    return found


KEY = ("device", "inode", "bytes", "mtime_ns", "ctime_ns")


def cache_hashes(connection: Connection, place: Place, hashes: Hashes, learned: Mapping[str, Any]) -> None:
    """Cache a file's hashes until its stat changes."""
    table = tables.file_hash
    key = {name: getattr(place, name) for name in KEY}
    connection.execute(delete(table).where(*(getattr(table.c, name) == value for name, value in key.items())))
    connection.execute(insert(table).values(**key, hashes=json.dumps(asdict(hashes)), learned=json.dumps(dict(learned))))


def _place_if_there(record: Record) -> Place | None:
    """The place of a single file; None for a folder, and where no file is."""
    try:
        return None if "root" in record.metadata else place_of(str(record.path))
    except OSError:
        return None


def hashed_files(record: Record) -> list[str]:
    """The files that make up a record's hash, as they are now."""
    return [str(file) for file in folder_files(Path(str(record.path)))] if "root" in record.metadata else [str(record.path)]


def folder_hashes(root: Path, digests: Mapping[str, str | None]) -> Found:
    """A folder's own sha256, and beside it the one of each file."""
    files = {Path(path).relative_to(root).as_posix(): str(digest) for path, digest in digests.items()}
    return Hashes(sha256=folder_sha256(files)), {"metadata": {"files_sha256": dict(sorted(files.items()))}}
