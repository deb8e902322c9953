"""Refreshes one record from its file: changed, moved, or missing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from registry.detect.inspect import inspect
from registry.errors import WriteFailed
from registry.files.write_failure import NOT_TAKEN
from registry.index import records, rows
from registry.index.database import Index
from registry.index.scanning.record_matcher import Digest, RecordMatcher, Seen, place_with_fingerprint
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.scan_write import upsert
from registry.record import Record, Warn
from registry.references import EMBEDDED


def refresh_record(record: Record, index: Index, digest: Digest) -> Record:
    """The record, inspected again when the stat of its file changed. Folders are refreshed by a scan only."""
    try:
        return _refreshed(record, index, digest)
    except WriteFailed as error:
        if error.errno not in NOT_TAKEN:
            raise
        return _unwritten(record, index)


def _unwritten(record: Record, index: Index) -> Record:
    """The record of an index that can only be read: as it was while its file has the same size, time and header; else what is there now."""
    path = Path(str(record.path))
    if not path.exists():
        return replace(record, warnings=(*record.warnings, records.missing_warning(path)))
    with index.reading() as connection:
        if rows.looks_known(connection, place_with_fingerprint(path)):
            return replace(record, warnings=tuple(one for one in record.warnings if one.code != "missing"))
    found = inspect(path)
    message = "It has changed since it was registered, and the index can only be read: this is the file as it is now."
    given = {name: getattr(record, name) for name in ("id", "name", "tags", "aliases", "notes")}
    return replace(found, **given, warnings=(*found.warnings, Warn(code="changed", message=message)))


def _refreshed(record: Record, index: Index, digest: Digest) -> Record:
    path = record.path
    if not record.id or record.id in EMBEDDED or path is None:
        return record
    if not os.path.lexists(path):
        return _missing_now(record, path, index, digest)
    if any(warning.code == "missing" for warning in record.warnings):
        return _found_again(record, path, index, digest)
    if "root" in record.metadata or not os.path.isfile(path):
        return record
    with index.reading() as connection:
        if rows.is_known(connection, rows.place_of(path)):
            return record
        known = rows.ids_by_path(connection, path)
    return _changed_on_disk(Path(path), index, digest) if known else _relocated(record, Path(path), index)


def _missing_now(record: Record, path: str, index: Index, digest: Digest) -> Record:
    """The record at another of its places; with a warning where none exists."""
    if any(warning.code == "missing" for warning in record.warnings):
        return record
    with index.writing() as connection:
        rows.mark_missing(connection, [path], True)
        found = next(iter(records.load(connection, [record.id])), record)
    return refresh_record(found, index, digest) if found.path != path else found


def _found_again(record: Record, path: str, index: Index, digest: Digest) -> Record:
    """The record of a place that exists again: a drive that was unmounted, a file that another machine could not see."""
    with index.writing() as connection:
        if rows.ids_by_path(connection, path) != [record.id]:
            return record  # another record's file is there
        rows.mark_missing(connection, [path], False)
        found = records.load(connection, [record.id])[0]
    return refresh_record(found, index, digest)


def _relocated(record: Record, path: Path, index: Index) -> Record:
    """The record of a file whose place is not in the index."""
    seen = inspect(path)
    with index.writing() as connection:
        rows.put_record(connection, replace(seen, id=record.id))
        rows.put_place(connection, record.id, place_with_fingerprint(path))
        rows.drop_content(connection, record.id)
        return records.load(connection, [record.id])[0]


def _changed_on_disk(path: Path, index: Index, digest: Digest) -> Record:
    """The record of the file that is there now; a swapped file is matched where it went, when the index knows that place."""
    matcher, found = RecordMatcher(index, digest), ScanReport(index)
    cycle = [Path(one) for one in matcher.swap_cycle(str(path))]
    upsert(index, [Seen(place_with_fingerprint(one), inspect(one)) for one in cycle], found, matcher)
    with index.reading() as connection:
        return records.load(connection, rows.ids_by_path(connection, str(path)))[0]
