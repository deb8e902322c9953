"""A damaged index made anew: the damaged file is kept aside, and every row of it that can still be read goes into a new one.

Rows are read one by one past the damaged pages. What a person said outlives a lost record: its file is inspected again, and
where that is gone too a record without a file holds what was said.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.exc import DatabaseError

from registry.detect.inspect import inspect
from registry.errors import LoomError
from registry.index import database as tables
from registry.index import rows
from registry.index.database import Damaged, open_index
from registry.index.sqlite import SqliteFile
from registry.index.storage.locks import held
from registry.record import Record

PAGE = 4096  # bytes of a page: SQLite's default, in which every index is made
AT_ONCE = 256  # rows asked for in one query, halved where one of them cannot be read
ROWIDS_AT_MOST = 1 << 22  # where the table no longer tells its last row
JSON_COLUMNS = ("data", "hashes", "learned", "parents", "recipe", "metadata")


@dataclass
class Salvaged:
    """What was read of a damaged index: rows a table, and how many were lost between them."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lost: int = 0
    orphans: int = 0


def recover(database: SqliteFile, reason: str | None) -> str | None:
    """Put a new index in the place of a damaged one and say what was done; None when another process has done it, or all is sound.

    The new index is whole before it takes the place: a kill at any moment leaves the damaged one or the new one.
    """
    path = database.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path):
        found = _fault(database)
        if found is None:
            return None
        salvaged = _read(path)
        temporary = SqliteFile(path.with_name(f".tmp-{secrets.token_hex(8)}.sqlite"))
        try:
            _write(temporary, salvaged)
            kept = _keep_aside(path)
            os.replace(temporary.path, path)
        finally:
            for ending in ("", "-wal", "-shm"):
                temporary.path.with_name(temporary.path.name + ending).unlink(missing_ok=True)
    return _told(path, reason or found, kept, salvaged)


def _told(path: Path, reason: str, kept: Path, salvaged: Salvaged) -> str:
    records = len(salvaged.rows.get("record", ()))
    said = sum(len(salvaged.rows.get(table.name, ())) for table in (tables.given, tables.given_name, tables.alias, tables.label))
    return (
        f"The index {path} was damaged ({reason}). It is kept as {kept.name}; a new one has the {records} records and {said} names, "
        f"tags and notes that could be read{f', {salvaged.lost} rows could not' if salvaged.lost else ''}. The models are untouched: "
        "scan your folders again to find what is missing."
    )


def _fault(database: SqliteFile) -> str | None:
    """What is wrong with the file; None when it is a sound index."""
    if not database.path.exists():
        return None
    try:
        engine = open_index(database)
    except Damaged as error:
        return str(error)
    try:
        with engine.connect() as connection:
            told = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    except DatabaseError as error:  # so damaged that it cannot even be checked
        return str(error.orig)
    finally:
        engine.dispose()
    return None if told == "ok" else " ".join(str(told).split())


def _keep_aside(path: Path) -> Path:
    """A copy of the damaged file with its journal, which is then taken away: the new file must not be given the old one's."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number, kept = 1, path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.stem}.damaged-{stamp}-{number}{path.suffix}")
    for ending in ("", "-wal"):
        source = path.with_name(path.name + ending)
        if source.exists():
            shutil.copy2(source, kept.with_name(kept.name + ending))
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    return kept


# --- reading past the damage


def _read(path: Path) -> Salvaged:
    """All rows that can be read; where the first page itself is lost, with the first page of an empty index in its place."""
    found = _read_file(path)
    if not any(found.rows.values()) and path.stat().st_size > PAGE:
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
            found = _read_file(_with_first_page(path, Path(folder)))
    return found


def _with_first_page(path: Path, folder: Path) -> Path:
    """A copy of an index that begins as an empty one does: its tables have their roots where every index has them."""
    empty, copy = SqliteFile(folder / "empty.sqlite"), folder / "copy.sqlite"
    engine = open_index(empty)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    for ending in ("", "-wal"):
        if path.with_name(path.name + ending).exists():
            shutil.copyfile(path.with_name(path.name + ending), copy.with_name(copy.name + ending))
    first = bytearray(empty.path.read_bytes()[:PAGE])
    # the file format's header: size in pages (28), no free pages (32, 36), and both change counters alike, so that the size is believed
    first[28:40] = struct.pack(">III", copy.stat().st_size // PAGE, 0, 0)
    first[92:96] = first[24:28]
    with copy.open("r+b") as file:
        file.write(first)
    return copy


def _read_file(path: Path) -> Salvaged:
    salvaged = Salvaged()
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        return salvaged
    with contextlib.closing(connection):
        connection.row_factory = sqlite3.Row
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA writable_schema = ON")  # a file that was cut is read as far as it goes
        for table in tables.TABLES.sorted_tables:
            salvaged.rows[table.name] = list(_rows(connection, table, salvaged))
    return salvaged


def _rows(connection: sqlite3.Connection, table: Table, salvaged: Salvaged) -> Iterator[dict[str, Any]]:
    """Every readable row of a table, by ranges of its row ids."""
    try:
        there = {str(row["name"]) for row in connection.execute(f"PRAGMA table_info('{table.name}')")}
    except sqlite3.Error:
        return
    if not there:
        return
    columns = [column.name for column in table.columns if column.name in there]
    query = f"SELECT {', '.join(columns)} FROM {table.name} NOT INDEXED WHERE rowid BETWEEN ? AND ?"
    waiting = _ranges(connection, table.name)
    while waiting:
        first, last = waiting.pop()
        try:
            found = [dict(row) for row in connection.execute(query, (first, last))]
        except (sqlite3.Error, UnicodeDecodeError, OverflowError):
            if first == last:
                salvaged.lost += 1
            else:
                middle = (first + last) // 2
                waiting += [(middle + 1, last), (first, middle)]
            continue
        sound = [row for row in found if _is_sound(row, table)]
        salvaged.lost += len(found) - len(sound)
        yield from sound


def _ranges(connection: sqlite3.Connection, table: str) -> list[tuple[int, int]]:
    """The row ids to ask for, the first range last. The last id of a table whose end is damaged is looked for in steps."""
    try:
        last = connection.execute(f"SELECT max(rowid) FROM {table} NOT INDEXED").fetchone()[0] or 0
    except sqlite3.Error:
        last = _last_seen(connection, table)
    return [(begin, min(begin + AT_ONCE - 1, last)) for begin in range(1, min(last, ROWIDS_AT_MOST) + 1, AT_ONCE)][::-1]


def _last_seen(connection: sqlite3.Connection, table: str) -> int:
    """The largest of 1, 2, 4, ... up to which some row can be read, doubled: an upper bound for what is left of a table."""
    last, step = 0, 1
    while step <= ROWIDS_AT_MOST:
        with contextlib.suppress(sqlite3.Error):
            if connection.execute(f"SELECT 1 FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ? LIMIT 1", (step, step + 8)).fetchone():
                last = step
        step *= 2
    return last * 2 + 8 if last else 0


def _is_sound(row: dict[str, Any], table: Table) -> bool:
    """Whether a row can be one of ours: keys that are there, texts that are texts, JSON that is JSON."""
    for column in table.columns:
        value = row.get(column.name)
        if value is None:
            if column.primary_key:
                return False
            continue
        wanted = int if column.type.python_type is int else str
        if not isinstance(value, wanted):
            return False
        if column.name in JSON_COLUMNS:
            try:
                json.loads(str(value))
            except ValueError:
                return False
    return True


# --- writing what was read


def _write(database: SqliteFile, salvaged: Salvaged) -> None:
    engine = open_index(database)
    with engine.connect().execution_options(loom_writes=True) as connection, connection.begin():
        for table in tables.TABLES.sorted_tables:
            for row in salvaged.rows.get(table.name, ()):
                _put(connection, table, row, salvaged)
        _give_homes(connection, salvaged)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")  # all in one file before it is renamed
    engine.dispose()


def _put(connection: Connection, table: Table, row: dict[str, Any], salvaged: Salvaged) -> None:
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(**row))
    except Exception:  # two rows that say they are one, an empty value where none may be: the damage reaches into what can be read
        salvaged.lost += 1


def _give_homes(connection: Connection, salvaged: Salvaged) -> None:
    """A record for every id of which something was said and whose own row was lost."""
    has = {str(row.id) for row in connection.execute(select(tables.record.c.id))}
    names = {str(row.record_id): str(row.name) for row in connection.execute(select(tables.given_name))}
    paths = {str(row.record_id): str(row.path) for row in connection.execute(select(tables.location))}
    kinds = {str(row.record_id): row.kind for row in connection.execute(select(tables.given))}
    spoken = {str(row.record_id) for table in tables.OF_A_RECORD for row in connection.execute(select(table.c.record_id))}
    for record_id in sorted(spoken - has - {"pocket"}):
        record = _inspected(paths.get(record_id)) or Record(
            id=record_id,
            name=Path(paths[record_id]).stem if record_id in paths else names.get(record_id, f"salvaged-{record_id[:6]}"),
            kind=kinds.get(record_id) or "unknown",
            evidence=("salvaged from a damaged index: only what was said of it could be read",),
        )
        rows.put_record(connection, replace(record, id=record_id))
        salvaged.orphans += 1


def _inspected(path: str | None) -> Record | None:
    if path is None:
        return None
    try:
        return inspect(path)
    except (LoomError, OSError, ValueError):
        return None
