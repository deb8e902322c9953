"""Rows of the index: derived facts and annotations, in separate tables. registry/index/records composes them."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, update

from registry.index import database as tables
from registry.index.migrations.m003_catalogue import COLUMNS, catalogued
from registry.record import Hashes, Record

DERIVED = ("name", "kind", "family", "variant", "prediction", "dialect", "algorithms", "dora", "rank", "alpha", "dtype", "components",
           "files", "triggers", "licence", "parents", "metadata", "evidence", "candidates", "warnings")  # fmt: skip
MANY = 500  # ids in one query
AS_JSON = json.JSONEncoder(ensure_ascii=False).encode
SHELVES = {"dataset": "dataset", "run": "run"}  # separate namespaces for models, datasets and runs


def shelf_of(kind: str) -> str:
    """The namespace of a kind's names."""
    return SHELVES.get(kind, "model")


@dataclass(frozen=True)
class Place:
    """The path and stat of a file or folder; two equal ones are the same unchanged content."""

    path: str
    bytes: int
    device: str
    inode: str
    mtime_ns: int
    ctime_ns: int
    fingerprint: str | None = None

    @property
    def signature(self) -> tuple[int, str, int, int]:
        """Without the device, whose number can change after a restart."""
        return (self.bytes, self.inode, self.mtime_ns, self.ctime_ns)


def place_of(path: Path | str, stat: os.stat_result | None = None, *, fingerprint: str | None = None) -> Place:
    """The Place of an existing path; `bytes` of a folder is 0."""
    seen = stat or os.stat(path)
    size = 0 if S_ISDIR(seen.st_mode) else seen.st_size
    return Place(str(path), size, str(seen.st_dev), str(seen.st_ino), seen.st_mtime_ns, seen.st_ctime_ns, fingerprint)


def now() -> str:
    """The time as Records hold it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id() -> str:
    """A Record's id: random, so that it holds through moves, renames and rebuilt tables."""
    return secrets.token_hex(8)


def select_many(connection: Connection, table: Any, column: Any, values: Collection[str] | None) -> list[Row[Any]]:
    """Rows whose column has one of the values, or all rows; many values take several queries."""
    if values is None:
        return list(connection.execute(select(table)))
    found: list[Row[Any]] = []
    wanted = list(values)
    for begin in range(0, len(wanted), MANY):
        found += connection.execute(select(table).where(column.in_(wanted[begin : begin + MANY])))
    return found


# --- writing


def put_record(connection: Connection, record: Record, created: str | None = None) -> None:
    """Write the derived half of a Record under its id; `created` stays as it was when it is known."""
    row = _record_row(record)
    changed = connection.execute(update(tables.record).where(tables.record.c.id == record.id).values(**row))
    if changed.rowcount == 0:
        connection.execute(insert(tables.record).values(id=record.id, created=created or now(), **row))


def _record_row(record: Record) -> dict[str, Any]:
    values = record.to_json(DERIVED)
    row = {"kind": record.kind, "family": record.family, "stem": record.name, "data": AS_JSON(values)}
    return row | catalogued(values)


def check_storable(record: Record) -> None:
    """Raise UnicodeEncodeError for a record with a text, such as the name of one of its files, that no database can hold."""
    str(_record_row(record)["data"]).encode()


def put_place(connection: Connection, record_id: str, place: Place, *, turn: int | None = None) -> None:
    """Set a record's place; a place holds one record. The place of the highest turn, the last one written, is shown first."""
    connection.execute(delete(tables.location).where(tables.location.c.path == place.path))
    connection.execute(
        insert(tables.location).values(record_id=record_id, missing=0, turn=time.time_ns() if turn is None else turn, **asdict(place))
    )


def put_fresh(connection: Connection, fresh: Sequence[tuple[str, Record, Place]]) -> None:
    """Insert many new records, each under its id and with its place."""
    if not fresh:
        return
    created, turn = now(), time.time_ns()
    connection.execute(insert(tables.record), [{"id": id_, "created": created, **_record_row(record)} for id_, record, _ in fresh])
    places = [{"record_id": id_, "missing": 0, "turn": turn, **vars(place)} for id_, _, place in fresh]
    connection.execute(insert(tables.location), places)


def empty_place(connection: Connection, path: str) -> None:
    """Delete a place."""
    connection.execute(delete(tables.location).where(tables.location.c.path == path))


def put_content(connection: Connection, record_id: str, hashes: Hashes, learned: Mapping[str, Any]) -> None:
    """Store a record's hashes and the facts that only reading the whole file shows."""
    connection.execute(delete(tables.content).where(tables.content.c.record_id == record_id))
    connection.execute(
        insert(tables.content).values(
            record_id=record_id,
            sha256=hashes.sha256,
            tensors_sha256=hashes.tensors_sha256,
            content_sha256=hashes.content_sha256,
            hashes=json.dumps(asdict(hashes)),
            learned=json.dumps(dict(learned)),
        )
    )


def drop_content(connection: Connection, record_id: str) -> None:
    """Forget the hashes of a record whose files have changed."""
    connection.execute(delete(tables.content).where(tables.content.c.record_id == record_id))


def put_given(connection: Connection, record_id: str, values: Mapping[str, Any]) -> None:
    """Store annotations; None leaves the earlier value."""
    stored = {
        key: json.dumps(value, ensure_ascii=False) if key in ("parents", "recipe", "metadata") else value
        for key, value in values.items()
        if value is not None
    }
    if not connection.execute(select(tables.given.c.record_id).where(tables.given.c.record_id == record_id)).first():
        connection.execute(insert(tables.given).values(record_id=record_id, **stored))
    elif stored:
        connection.execute(update(tables.given).where(tables.given.c.record_id == record_id).values(**stored))


def put_name(connection: Connection, record_id: str, name: str, shelf: str) -> None:
    """Give a record a name. A record of the same shelf that had it keeps it as `name@<registration time>`."""
    names = tables.given_name
    held = select(names.c.record_id).where(
        names.c.name == name, names.c.shelf == shelf, names.c.current == 1, names.c.record_id != record_id
    )
    for (older,) in connection.execute(held).all():
        created = connection.execute(select(tables.record.c.created).where(tables.record.c.id == older)).scalar()
        put_alias(connection, older, name, _free_stamp(connection, name, str(created or now())))
        connection.execute(update(names).where(names.c.name == name, names.c.record_id == older).values(current=0))
    connection.execute(delete(names).where(names.c.name == name, names.c.record_id == record_id))
    connection.execute(insert(names).values(name=name, record_id=record_id, shelf=shelf, current=1, turn=time.time_ns()))


def _free_stamp(connection: Connection, name: str, created: str) -> str:
    """20261123-184500 of a time, with -2, -3, ... when that alias is taken."""
    stamp = created.replace("-", "").replace(":", "").replace("T", "-").removesuffix("Z")
    taken = {row.alias for row in connection.execute(select(tables.alias.c.alias).where(tables.alias.c.name == name))}
    number, free = 1, stamp
    while free in taken:
        number += 1
        free = f"{stamp}-{number}"
    return free


def put_alias(connection: Connection, record_id: str, name: str, alias: str) -> None:
    """Point `name@alias` to this record only."""
    connection.execute(delete(tables.alias).where(tables.alias.c.name == name, tables.alias.c.alias == alias))
    connection.execute(insert(tables.alias).values(name=name, alias=alias, record_id=record_id))


def drop_alias(connection: Connection, record_id: str, alias: str) -> None:
    """Take an alias away from a record, under whichever of its names."""
    connection.execute(delete(tables.alias).where(tables.alias.c.record_id == record_id, tables.alias.c.alias == alias))


def put_labels(connection: Connection, record_id: str, kind: str, values: Iterable[str]) -> None:
    """Add tags or triggers; those it has already stay."""
    had = {
        row.value
        for row in connection.execute(
            select(tables.label.c.value).where(tables.label.c.record_id == record_id, tables.label.c.kind == kind)
        )
    }
    for value in dict.fromkeys(values):
        if value not in had:
            connection.execute(insert(tables.label).values(record_id=record_id, kind=kind, value=value))


def forget(connection: Connection, record_id: str) -> None:
    """Delete a record and everything about it."""
    for table in tables.OF_A_RECORD:
        connection.execute(delete(table).where(table.c.record_id == record_id))
    connection.execute(delete(tables.record).where(tables.record.c.id == record_id))


def join(connection: Connection, record_id: str, other_id: str) -> None:
    """Merge two records of the same content: places and facts of the other, annotations of both."""
    for table in (tables.label, tables.given_name):
        keys = [column.name for column in table.primary_key if column.name != "record_id"]
        has = {tuple(row) for row in connection.execute(select(*(table.c[key] for key in keys)).where(table.c.record_id == record_id))}
        for row in connection.execute(select(*(table.c[key] for key in keys)).where(table.c.record_id == other_id)).all():
            if tuple(row) not in has:
                same = (table.c[key] == value for key, value in zip(keys, row, strict=True))
                connection.execute(update(table).where(table.c.record_id == other_id, *same).values(record_id=record_id))
    for table in (tables.location, tables.alias):
        connection.execute(update(table).where(table.c.record_id == other_id).values(record_id=record_id))
    _join_given(connection, record_id, other_id)
    facts = connection.execute(select(tables.record).where(tables.record.c.id == other_id)).one()
    values = {name: getattr(facts, name) for name in ("kind", "family", "stem", "data", *COLUMNS)}
    connection.execute(update(tables.record).where(tables.record.c.id == record_id).values(**values))
    if not connection.execute(select(tables.content.c.record_id).where(tables.content.c.record_id == record_id)).first():
        connection.execute(update(tables.content).where(tables.content.c.record_id == other_id).values(record_id=record_id))
    forget(connection, other_id)


def _join_given(connection: Connection, record_id: str, other_id: str) -> None:
    table = tables.given
    mine = connection.execute(select(table).where(table.c.record_id == record_id)).first()
    other = connection.execute(select(table).where(table.c.record_id == other_id)).first()
    if other is None:
        return
    if mine is None:
        connection.execute(update(table).where(table.c.record_id == other_id).values(record_id=record_id))
        return
    values = {name: value for name, value in other._mapping.items() if value is not None and getattr(mine, name) is None}
    if mine.notes and other.notes and other.notes != mine.notes:
        values["notes"] = f"{mine.notes}\n{other.notes}"
    if values:
        connection.execute(update(table).where(table.c.record_id == record_id).values(**values))


# --- looking up


def is_known(connection: Connection, place: Place) -> bool:
    """Whether the index knows this file as it is now."""
    row = connection.execute(select(tables.location).where(tables.location.c.path == place.path)).first()
    return row is not None and (row.bytes, row.inode, row.mtime_ns, row.ctime_ns) == place.signature


def looks_known(connection: Connection, place: Place) -> bool:
    """Whether the index knows a file of this size, time and header in this place: it may have been away, or restored."""
    row = connection.execute(select(tables.location).where(tables.location.c.path == place.path)).first()
    if row is None or row.fingerprint is None:
        return False
    return bool((row.bytes, row.mtime_ns, row.fingerprint) == (place.bytes, place.mtime_ns, place.fingerprint))


def ids_by_path(connection: Connection, path: str) -> list[str]:
    """The record at a path, if there is one."""
    return [str(row.record_id) for row in connection.execute(select(tables.location.c.record_id).where(tables.location.c.path == path))]


def ids_by_paths(connection: Connection, paths: Collection[str]) -> dict[str, str]:
    """Path -> record, of those that have one."""
    return {row.path: row.record_id for row in select_many(connection, tables.location, tables.location.c.path, paths)}


def ids_that_are(connection: Connection, ids: Collection[str]) -> set[str]:
    """The ids that have a record."""
    return {str(row.id) for row in select_many(connection, tables.record, tables.record.c.id, ids)}


def ids_by_sha256(connection: Connection, prefix: str) -> list[str]:
    """Records whose whole file, data section or content has a hash that begins so."""
    table = tables.content
    end = prefix + "g"  # behind every hex digit
    found = connection.execute(
        select(table.c.record_id).where(
            or_(*(column.between(prefix, end) for column in (table.c.sha256, table.c.tensors_sha256, table.c.content_sha256)))
        )
    )
    return [str(row.record_id) for row in found]


def ids_by_name(connection: Connection, name: str) -> tuple[list[str], list[str]]:
    """(records with this given name, records without a given name whose file has it)."""
    names = tables.given_name
    given = [str(row.record_id) for row in connection.execute(select(names.c.record_id).where(names.c.name == name, names.c.current == 1))]
    named = select(names.c.record_id).where(names.c.record_id == tables.record.c.id).exists()
    stems = connection.execute(select(tables.record.c.id).where(tables.record.c.stem == name, ~named))
    return given, [str(row.id) for row in stems]


def ids_by_alias(connection: Connection, name: str, alias: str) -> list[str]:
    """The record of `name@alias`: the one with that name, or one that has both after its file was renamed."""
    table = tables.alias
    having = {str(row.record_id): str(row.name) for row in connection.execute(select(table).where(table.c.alias == alias))}
    exact = [record_id for record_id, under in having.items() if under == name]
    given, stems = ids_by_name(connection, name) if having and not exact else ([], [])
    return exact or [record_id for record_id in given or stems if record_id in having]


def ids_by_source(connection: Connection, source: str) -> list[str]:
    """Records downloaded from a source, or from a revision or file of it."""
    beginning = json.dumps({"source": re.match(r"(?:hf:)?[^@]*?(?=@|$)", source)[0]})[1:-2]  # type: ignore[index]  # matches every text
    table = tables.given
    found = connection.execute(select(table.c.record_id).where(table.c.metadata.contains(beginning, autoescape=True)))
    return [str(row.record_id) for row in found]


def ids_with_parents(connection: Connection, words: Iterable[str]) -> list[str]:
    """Records to which a job, a person or their own file gives parents, where one of these words may be in a parent's entry."""
    record, given = tables.record, tables.given
    spelt = [json.dumps(word, ensure_ascii=False)[1:-1] for word in words]

    def holds(column: Any) -> Any:
        return or_(*(column.contains(word, autoescape=True) for word in spelt))

    own = select(record.c.id).where(record.c.data.contains('"parents": [{', autoescape=True), holds(record.c.data))
    stated = select(given.c.record_id).where(given.c.parents.is_not(None), holds(given.c.parents))
    return list(dict.fromkeys(str(row[0]) for query in (own, stated) for row in connection.execute(query)))


def ids_called(connection: Connection, name: str) -> list[str]:
    """Records that may have this name, title or file name: those whose facts, places or given names hold it."""
    spelt = json.dumps(name, ensure_ascii=False)[1:-1]
    columns = ((tables.record.c.id, tables.record.c.data, spelt), (tables.location.c.record_id, tables.location.c.path, name))
    queries = [select(id_).where(column.contains(text, autoescape=True)) for id_, column, text in columns]
    queries.append(select(tables.given_name.c.record_id).where(tables.given_name.c.name == name))
    return list(dict.fromkeys(str(row[0]) for query in queries for row in connection.execute(query)))


def all_names(connection: Connection, kind: str | None = None) -> set[str]:
    """Every name a reference may use: given names, file names of what has none, `name@alias`; those of one kind."""
    given, aliased, record = tables.given_name, tables.alias, tables.record
    stated = tables.given
    wanted = select(record.c.id).outerjoin(stated, stated.c.record_id == record.c.id)
    wanted = wanted if kind is None else wanted.where(func.coalesce(stated.c.kind, record.c.kind) == kind)
    of_names = select(given.c.name).where(given.c.current == 1, given.c.record_id.in_(wanted))
    named = select(given.c.record_id).where(given.c.record_id == record.c.id).exists()
    of_files = select(record.c.stem).where(~named, record.c.id.in_(wanted))
    of_aliases = select(aliased.c.name, aliased.c.alias).where(aliased.c.record_id.in_(wanted))
    found = {str(name) for query in (of_names, of_files) for (name,) in connection.execute(query)}
    return found | {f"{row.name}@{row.alias}" for row in connection.execute(of_aliases)}


def mark_missing(connection: Connection, paths: Iterable[str], missing: bool) -> None:
    """Mark places as missing, or as present again."""
    rows = [{"which": path} for path in paths]
    if rows:
        connection.execute(update(tables.location).where(tables.location.c.path == bindparam("which")).values(missing=int(missing)), rows)
