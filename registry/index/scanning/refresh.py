"""A record as its file is now: looked at again when it was written to, found where it went, told when it is gone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from registry.detect.inspect import inspect
from registry.index import records, rows
from registry.index.database import Index
from registry.index.scanning.record_matcher import Digest, Places, Seen, place_with_fingerprint
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.scan_write import upsert
from registry.record import Record
from registry.references import POCKET


def refresh_record(record: Record, index: Index, digest: Digest) -> Record:
    """The record, brought up to date when the system says that its file changed. Folders are looked at by a scan."""
    path = record.path
    if not record.id or record.id == POCKET or path is None:
        return record
    if not os.path.lexists(path):
        return _gone(record, path, index, digest)
    if any(warning.code == "missing" for warning in record.warnings):
        return _back(record, path, index, digest)
    if "root" in record.metadata or not os.path.isfile(path):
        return record
    with index.reading() as connection:
        if rows.is_known(connection, rows.place_of(path)):
            return record
        known = rows.ids_by_path(connection, path)
    return _written_to(Path(path), index, digest) if known else _relocated(record, Path(path), index)


def _gone(record: Record, path: str, index: Index, digest: Digest) -> Record:
    """The record seen from a place where it still lies; with a warning where there is none."""
    if any(warning.code == "missing" for warning in record.warnings):
        return record
    with index.writing() as connection:
        rows.mark_missing(connection, [path], True)
        found = next(iter(records.load(connection, [record.id])), record)
    return refresh_record(found, index, digest) if found.path != path else found


def _back(record: Record, path: str, index: Index, digest: Digest) -> Record:
    """The record of a place that was empty and is not any more: a drive that was away, a file that another machine could not see."""
    with index.writing() as connection:
        if rows.ids_by_path(connection, path) != [record.id]:
            return record  # another record's file lies there
        rows.mark_missing(connection, [path], False)
        found = records.load(connection, [record.id])[0]
    return refresh_record(found, index, digest)


def _relocated(record: Record, path: Path, index: Index) -> Record:
    """The record of a file whose place the index has lost, to damage."""
    seen = inspect(path)
    with index.writing() as connection:
        rows.put_record(connection, replace(seen, id=record.id))
        rows.put_place(connection, record.id, place_with_fingerprint(path))
        rows.drop_content(connection, record.id)
        return records.load(connection, [record.id])[0]


def _written_to(path: Path, index: Index, digest: Digest) -> Record:
    """The record of what lies there now; what lay there is found where it went, when that is a place the index knows."""
    places, found = Places(index, digest), ScanReport(index)
    chain = [Path(one) for one in places.chain_of(str(path))]
    upsert(index, [Seen(place_with_fingerprint(one), inspect(one)) for one in chain], found, places)
    with index.reading() as connection:
        return records.load(connection, rows.ids_by_path(connection, str(path)))[0]
