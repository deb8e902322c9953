"""Writes the result of a scan: the record of each file, and the places that are missing now.

Identity is content. A file that moved, was swapped or had its metadata edited keeps its record and annotations; a record whose
file is gone and whose copy has a record of its own is merged with that one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, select

from registry.errors import BadFile, LoomError
from registry.index import database as tables
from registry.index import records, rows
from registry.index.database import Index
from registry.index.rows import Place
from registry.index.scanning.record_matcher import RecordMatcher, Seen
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.walk import problem_of
from registry.index.storage.hash_cache import cached_hashes
from registry.record import Record

Match = tuple[str | None, str]  # record id, action


def upsert(index: Index, batch: Sequence[Seen], found: ScanReport, matcher: RecordMatcher) -> None:
    """Write a batch of files, in one transaction where it can be; a file that cannot be written is a problem of its own."""
    matches: dict[str, Match] = {}
    for seen in batch:
        try:
            matches[seen.place.path] = matcher.match(seen)
        except LoomError:
            raise  # of the index, not of this file
        except Exception as error:
            found.problems.append(problem_of(seen.place.path, error))
    _write_all([seen for seen in batch if seen.place.path in matches], matches, index, found, matcher)


def _write_all(batch: Sequence[Seen], matches: Mapping[str, Match], index: Index, found: ScanReport, matcher: RecordMatcher) -> None:
    """Write the files together; where that fails, each by itself."""
    if not batch:
        return
    try:
        done = _write(batch, matches, index, matcher)
    except LoomError:
        raise
    except Exception as error:
        matcher.forget([seen.place for seen in batch])
        if len(batch) == 1:
            found.problems.append(problem_of(batch[0].place.path, error))
        else:
            for seen in batch:
                _write_all([seen], matches, index, found, matcher)
        return
    for record_id, action in done:
        setattr(found, action, getattr(found, action) + 1)
        found.ids[record_id] = None


def _write(batch: Sequence[Seen], matches: Mapping[str, Match], index: Index, matcher: RecordMatcher) -> list[tuple[str, str]]:
    """(record id, action) of each file, written in one transaction; matches that another process changed are decided again."""
    done: list[tuple[str, str]] = []
    with index.writing() as connection:
        known = rows.ids_by_paths(connection, [seen.place.path for seen in batch])
        alive = rows.ids_that_are(connection, [record_id for record_id, _ in matches.values() if record_id is not None])
        hashes = cached_hashes(connection, [seen.place for seen in batch if "root" not in seen.record.metadata])
        new: list[tuple[str, Record, Place]] = []
        for seen in batch:
            path = seen.place.path
            record_id, action = matches[path]
            if record_id is None or record_id not in alive:  # or removed by another process
                record_id, action = _record_for(seen, known.get(path), matcher)
            matcher.remember(seen.place, record_id)
            done.append((record_id, action))
            if action == "added":
                if path in known:
                    rows.empty_place(connection, path)
                new.append((record_id, seen.record, seen.place))
            elif action == "unchanged":  # another link to a file that has its record
                rows.put_place(connection, record_id, seen.place, turn=0)
            else:
                _update(connection, record_id, seen, action, path in hashes, matcher)
            if action != "unchanged" and path in hashes:
                rows.put_content(connection, record_id, *hashes[path])
        rows.put_fresh(connection, new)
    return done


def _record_for(seen: Seen, there: str | None, matcher: RecordMatcher) -> tuple[str, str]:
    """(record id, action): the record of this place, unless its file was matched elsewhere; that of a hard link; or a new one."""
    if there is not None and there not in matcher.matched:
        return there, "updated"
    linked = matcher.hardlink_of(seen.place) if there is None else None
    return (linked, "unchanged") if linked else (rows.new_id(), "added")


def _update(connection: Connection, record_id: str, seen: Seen, action: str, hashed: bool, matcher: RecordMatcher) -> None:
    rows.put_record(connection, replace(seen.record, id=record_id))
    table = tables.location
    vacated = [row.path for row in matcher.vacated().get(record_id, ())] if action == "relinked" else []
    connection.execute(delete(table).where(table.c.record_id == record_id, table.c.path.in_(vacated)))
    same = rows.looks_known(connection, seen.place)  # it was away, or restored
    rows.put_place(connection, record_id, seen.place)
    if action == "updated" and not hashed and not same:
        rows.drop_content(connection, record_id)


def mark_missing(index: Index, unseen: Sequence[str], found: ScanReport, matcher: RecordMatcher) -> None:
    """Mark known places as missing. A place whose record was matched elsewhere is deleted."""
    paths = [path for path in unseen if not os.path.lexists(path)]
    if not paths:
        return
    with index.reading() as connection:
        known = {row.path: row for row in rows.select_many(connection, tables.location, tables.location.c.path, paths)}
    gone = [known[path] for path in paths if path in known]
    copies = {row.record_id: _surviving_copy(index, row, alike, matcher) for row in gone if (alike := matcher.copies_of(row))}
    with index.writing() as connection:
        for row in gone:
            there = rows.ids_by_path(connection, row.path)
            if not there:
                continue  # found elsewhere in this scan
            others = select(tables.location.c.path).where(tables.location.c.record_id == there[0], tables.location.c.path != row.path)
            copy = copies.get(there[0])
            if any(os.path.lexists(other.path) for other in connection.execute(others)):
                rows.empty_place(connection, row.path)
            elif copy is not None and rows.ids_that_are(connection, [copy]):
                rows.join(connection, there[0], copy)
                rows.empty_place(connection, row.path)
                found.ids.pop(copy, None)
                found.ids[there[0]] = None
                found.relinked += 1
            else:
                found.missing += 1
                rows.mark_missing(connection, [row.path], True)


def _surviving_copy(index: Index, row: Any, copies: Sequence[str], matcher: RecordMatcher) -> str | None:
    """Of the records with a file of the same header, the id of one with the same hash; they are hashed for that."""
    with index.reading() as connection:
        record = next(iter(records.load(connection, [row.record_id])), None)
        others = records.load(connection, copies)
    if record is None or record.hashes.sha256 is None:
        return None
    for other in others:
        try:
            if matcher.digest(other).sha256 == record.hashes.sha256 and rows.shelf_of(other.kind) == rows.shelf_of(record.kind):
                return other.id
        except (BadFile, OSError):
            continue
    return None
