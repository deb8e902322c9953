"""Writes into the index what was seen on the disk: which record each file is, and which places are empty now.

Identity is content. A file that moved, was swapped with another or had its metadata edited on the way keeps its record, with
all that was said of it; a record whose file is gone and whose copy has a record of its own is joined with that one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, select

from registry.errors import BadFile
from registry.index import database as tables
from registry.index import records, rows
from registry.index.database import Index
from registry.index.rows import Place
from registry.index.scanning.record_matcher import Places, Seen
from registry.index.scanning.scan_report import ScanReport
from registry.index.storage.hash_cache import cached_hashes
from registry.record import Record


def upsert(index: Index, batch: Sequence[Seen], found: ScanReport, places: Places) -> None:
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
            path = seen.place.path
            home, how = homes[path]
            if home is None or home not in alive:  # or forgotten by another process
                home, how = _home(seen, known.get(path), places)
            places.keep(seen.place, home)
            setattr(found, how, getattr(found, how) + 1)
            found.ids[home] = None
            if how == "added":
                if path in known:
                    rows.empty_place(connection, path)
                fresh.append((replace(seen.record, id=home), seen.place))
            elif how == "unchanged":  # another link to a file that has its record
                rows.put_place(connection, home, seen.place, turn=0)
            else:
                _put_again(connection, home, seen, how, path in hashes, places)
            if how != "unchanged" and path in hashes:
                rows.put_content(connection, home, *hashes[path])
        rows.put_fresh(connection, fresh)


def _home(seen: Seen, there: str | None, places: Places) -> tuple[str, str]:
    """The record that was in this place, unless its own file was found elsewhere; a twin's; or a new one."""
    if there is not None and there not in places.claimed:
        return there, "updated"
    twin = places.twin_of(seen.place) if there is None else None
    return (twin, "unchanged") if twin else (rows.new_id(), "added")


def _put_again(connection: Connection, home: str, seen: Seen, how: str, hashed: bool, places: Places) -> None:
    rows.put_record(connection, replace(seen.record, id=home))
    table = tables.location
    left = [row.path for row in places.left().get(home, ())] if how == "relinked" else []
    connection.execute(delete(table).where(table.c.record_id == home, table.c.path.in_(left)))
    same = rows.looks_known(connection, seen.place)  # it was away, or restored
    rows.put_place(connection, home, seen.place)
    if how == "updated" and not hashed and not same:
        rows.drop_content(connection, home)


def mark_missing(index: Index, unseen: Sequence[Any], found: ScanReport, places: Places) -> None:
    """Say which known places are empty. A place whose record was found elsewhere is dropped."""
    gone = [row for row in unseen if not os.path.lexists(row.path)]
    if not gone:
        return
    heirs = {row.record_id: _surviving_copy(index, row, copies, places) for row in gone if (copies := places.copies_of(row))}
    with index.writing() as connection:
        for row in gone:
            there = rows.ids_by_path(connection, row.path)
            if not there:
                continue  # found elsewhere in this scan
            others = select(tables.location.c.path).where(tables.location.c.record_id == there[0], tables.location.c.path != row.path)
            heir = heirs.get(there[0])
            if any(os.path.lexists(other.path) for other in connection.execute(others)):
                rows.empty_place(connection, row.path)
            elif heir is not None and rows.ids_that_are(connection, [heir]):
                rows.join(connection, there[0], heir)
                rows.empty_place(connection, row.path)
                found.ids.pop(heir, None)
                found.ids[there[0]] = None
                found.relinked += 1
            else:
                found.missing += 1
                rows.mark_missing(connection, [row.path], True)


def _surviving_copy(index: Index, row: Any, copies: Sequence[str], places: Places) -> str | None:
    """Of the records whose files look like the one that is gone from this place, the one that is a copy: it is hashed for that."""
    with index.reading() as connection:
        record = next(iter(records.load(connection, [row.record_id])), None)
        others = records.load(connection, copies)
    if record is None or record.hashes.sha256 is None:
        return None
    for other in others:
        try:
            if places.digest(other).sha256 == record.hashes.sha256 and rows.shelf_of(other.kind) == rows.shelf_of(record.kind):
                return other.id
        except (BadFile, OSError):
            continue
    return None
