"""Records as rows of the index and back: derived facts and what a person said are kept apart and put together here."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, or_, select, update

from registry import index as tables
from registry.record import FileEntry, Hashes, Record, Warn

DERIVED = ("name", "kind", "family", "variant", "prediction", "dialect", "algorithms", "dora", "rank", "alpha", "dtype", "components",
           "files", "triggers", "licence", "parents", "metadata", "evidence", "candidates", "warnings")  # fmt: skip
MANY = 500  # ids asked for in one query
SHELVES = {"dataset": "dataset", "run": "run"}  # names are apart for models, datasets and runs


def shelf_of(kind: str) -> str:
    """Among which records a name is one's own."""
    return SHELVES.get(kind, "model")


@dataclass(frozen=True)
class Place:
    """Where a file or folder lies and what the system says of it; two equal ones are the same unchanged content."""

    path: str
    bytes: int
    device: str
    inode: str
    mtime_ns: int
    ctime_ns: int
    fingerprint: str | None = None

    @property
    def signature(self) -> tuple[int, str, str, int, int]:
        return (self.bytes, self.device, self.inode, self.mtime_ns, self.ctime_ns)


def place_of(path: Path | str, stat: os.stat_result | None = None) -> Place:
    """The Place of an existing path; `bytes` of a folder is 0."""
    seen = stat or os.stat(path)
    size = 0 if os.path.isdir(path) else seen.st_size
    return Place(str(path), size, str(seen.st_dev), str(seen.st_ino), seen.st_mtime_ns, seen.st_ctime_ns)


def now() -> str:
    """The time as Records hold it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id() -> str:
    """A Record's id: random, so that it holds through moves, renames and rebuilt tables."""
    return secrets.token_hex(8)


# --- reading


@dataclass
class Said:
    """Everything about some records that is not derived from their headers, by record id."""

    places: dict[str, list[Row[Any]]]
    contents: dict[str, Row[Any]]
    given: dict[str, Row[Any]]
    names: dict[str, list[Row[Any]]]
    aliases: dict[str, list[Row[Any]]]
    labels: dict[str, list[Row[Any]]]


def load(connection: Connection, ids: Collection[str] | None = None) -> list[Record]:
    """The Records of these ids, or all of them, oldest first."""
    rows = _rows(connection, tables.record, tables.record.c.id, ids)
    said = gather(connection, [row.id for row in rows] if ids is not None else None)
    records = [_placed(compose(_derived(row), said), said.places.get(row.id, [])) for row in rows]
    return sorted(_with_twins(connection, records), key=lambda record: (record.created or "", record.name))


def _derived(row: Row[Any]) -> Record:
    return replace(Record.from_json({"id": row.id, "name": row.stem, **json.loads(row.data)}), created=row.created)


def gather(connection: Connection, ids: Collection[str] | None) -> Said:
    """What is said of these records, or of all."""

    def grouped(table: Any) -> dict[str, list[Row[Any]]]:
        found: dict[str, list[Row[Any]]] = {}
        for row in _rows(connection, table, table.c.record_id, ids):
            found.setdefault(row.record_id, []).append(row)
        return found

    return Said(
        places=grouped(tables.location),
        contents={key: rows[0] for key, rows in grouped(tables.content).items()},
        given={key: rows[0] for key, rows in grouped(tables.given).items()},
        names=grouped(tables.given_name),
        aliases=grouped(tables.alias),
        labels=grouped(tables.label),
    )


def _rows(connection: Connection, table: Any, column: Any, ids: Collection[str] | None) -> list[Row[Any]]:
    if ids is None:
        return list(connection.execute(select(table)))
    found: list[Row[Any]] = []
    wanted = list(ids)
    for begin in range(0, len(wanted), MANY):
        found += connection.execute(select(table).where(column.in_(wanted[begin : begin + MANY])))
    return found


def compose(derived: Record, said: Said) -> Record:
    """The Record as it is shown: the header's facts, under what a person said."""
    given = said.given.get(derived.id)
    labels = said.labels.get(derived.id, [])
    values: dict[str, Any] = {
        "name": display_name(derived, said),
        "aliases": _alias_names(derived, said),
        "tags": tuple(sorted(row.value for row in labels if row.kind == "tag")),
        "triggers": tuple(dict.fromkeys([row.value for row in labels if row.kind == "trigger"] + list(derived.triggers))),
    }
    if given is not None:
        values |= {name: value for name in ("notes", "licence") if (value := getattr(given, name)) is not None}
        values |= {"recipe": json.loads(given.recipe)} if given.recipe else {}
        values |= {"parents": tuple(json.loads(given.parents))} if given.parents else {}
        values |= {"metadata": {**derived.metadata, **json.loads(given.metadata)}} if given.metadata else {}
        values |= _told(derived, given)
    record = replace(derived, **values)
    content = said.contents.get(derived.id)
    return with_content(record, Hashes(**json.loads(content.hashes)), json.loads(content.learned)) if content is not None else record


def with_content(record: Record, hashes: Hashes, learned: Mapping[str, Any]) -> Record:
    """The Record with its hashes, and what reading all of the file has told."""
    return replace(
        record,
        hashes=hashes,
        alpha=record.alpha if record.alpha is not None else learned.get("alpha"),
        metadata={**record.metadata, **learned.get("metadata", {})},
        warnings=(*record.warnings, *(Warn(**warning) for warning in learned.get("warnings", ()))),
    )


def _told(derived: Record, given: Row[Any]) -> dict[str, Any]:
    """Kind and family, where a person said another than the header shows."""
    told: dict[str, Any] = {}
    evidence = list(derived.evidence)
    for name in ("kind", "family"):
        value = getattr(given, name)
        if value is not None and value != getattr(derived, name):
            told[name] = value
            evidence.append(f"{name} {value}: told when it was registered")
    if "family" in told:
        told["candidates"] = ()
    return {**told, "evidence": tuple(evidence)} if told else {}


def _placed(record: Record, places: Sequence[Row[Any]]) -> Record:
    """With the newest place that is there first, the others as copies, and a warning when none is left."""
    if not places:
        message = f"{record.path} holds something else now, or was moved. Scan the folder it moved to."
        return replace(record, warnings=(*record.warnings, Warn(code="missing", message=message)))
    ordered = sorted(places, key=lambda place: (place.missing, -place.turn))
    first, metadata = ordered[0], dict(record.metadata)
    copies = [place.path for place in ordered[1:] if not place.missing]
    if copies:
        metadata["copies"] = copies
    values: dict[str, Any] = {"metadata": metadata}
    if "root" in metadata:
        metadata["root"] = first.path
        values["files"] = tuple(_moved(entry, str(record.metadata["root"]), first.path) for entry in record.files)
    else:
        values["files"] = (FileEntry(path=first.path, bytes=first.bytes),)
    if first.missing:
        warning = Warn(code="missing", message=f"{first.path} is not there any more. Scan the folder it moved to.")
        values["warnings"] = (*record.warnings, warning)
    return replace(record, **values)


def _with_twins(connection: Connection, records: list[Record]) -> list[Record]:
    """With a warning on each record whose weights another record has too, in whatever dialect or under whatever name."""
    table = tables.content
    ids_of: dict[tuple[str, str], set[str]] = {}
    for kind in ("sha256", "content_sha256"):
        wanted = {value for record in records if (value := getattr(record.hashes, kind))}
        for row in _rows(connection, table, getattr(table.c, kind), wanted):
            ids_of.setdefault((kind, getattr(row, kind)), set()).add(row.record_id)
    if all(len(ids) < 2 for ids in ids_of.values()):
        return records
    told = []
    for record in records:
        same = ids_of.get(("sha256", record.hashes.sha256 or ""), set()) - {record.id}
        alike = ids_of.get(("content_sha256", record.hashes.content_sha256 or ""), set()) - {record.id} - same
        warnings = [Warn(code="duplicate", message=f"The same file is registered as {_names(connection, same)}.")] if same else []
        warnings += [Warn(code="duplicate", message=f"{_names(connection, alike)} holds the same weights.")] if alike else []
        told.append(replace(record, warnings=(*record.warnings, *warnings)))
    return told


def _names(connection: Connection, ids: set[str]) -> str:
    said = gather(connection, ids)
    return ", ".join(sorted(display_name(_derived(row), said) for row in _rows(connection, tables.record, tables.record.c.id, ids)))


def _moved(entry: FileEntry, old: str, new: str) -> FileEntry:
    return entry if old == new else FileEntry(path=new + entry.path.removeprefix(old), bytes=entry.bytes)


def display_name(derived: Record, said: Said) -> str:
    """The newest name that is the record's own; of one whose name went to another, `name@alias`; else the file's."""
    names = sorted(said.names.get(derived.id, []), key=lambda row: (-row.current, -row.turn))
    if not names:
        return derived.name
    if names[0].current:
        return str(names[0].name)
    alias = next((row.alias for row in said.aliases.get(derived.id, []) if row.name == names[0].name), None)
    return f"{names[0].name}@{alias}" if alias else str(names[0].name)


def _alias_names(derived: Record, said: Said) -> tuple[str, ...]:
    """`alias` under its own name, `name@alias` under another, and its other names."""
    name = display_name(derived, said)
    own = name.partition("@")[0]
    found = [row.alias if row.name == own else f"{row.name}@{row.alias}" for row in said.aliases.get(derived.id, [])]
    found += [row.name for row in said.names.get(derived.id, []) if row.current and row.name != name]
    return tuple(sorted(found))


# --- writing


def put_record(connection: Connection, record: Record, created: str | None = None) -> None:
    """Write the derived half of a Record under its id; `created` stays as it was when it is known."""
    row = _record_row(record)
    changed = connection.execute(update(tables.record).where(tables.record.c.id == record.id).values(**row))
    if changed.rowcount == 0:
        connection.execute(insert(tables.record).values(id=record.id, created=created or now(), **row))


def _record_row(record: Record) -> dict[str, Any]:
    values = {key: value for key, value in record.to_json().items() if key in DERIVED}
    return {"kind": record.kind, "family": record.family, "stem": record.name, "data": json.dumps(values, ensure_ascii=False)}


def put_place(connection: Connection, record_id: str, place: Place, *, turn: int | None = None) -> None:
    """Say that a record lies in a place; a place holds one record. The place of the highest turn is shown first: the last one put."""
    connection.execute(delete(tables.location).where(tables.location.c.path == place.path))
    connection.execute(
        insert(tables.location).values(record_id=record_id, missing=0, turn=time.time_ns() if turn is None else turn, **asdict(place))
    )


def put_fresh(connection: Connection, fresh: Sequence[tuple[Record, Place]]) -> None:
    """Write records nobody has seen before, each with its place, many at once."""
    if not fresh:
        return
    created, turn = now(), time.time_ns()
    connection.execute(insert(tables.record), [{"id": record.id, "created": created, **_record_row(record)} for record, _ in fresh])
    places = [{"record_id": record.id, "missing": 0, "turn": turn, **asdict(place)} for record, place in fresh]
    connection.execute(insert(tables.location), places)


def put_content(connection: Connection, record_id: str, hashes: Hashes, learned: Mapping[str, Any]) -> None:
    """Keep a record's hashes, and what reading all of it has told beside."""
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
    """Keep what a person said; None leaves what was said before."""
    said = {
        key: json.dumps(value, ensure_ascii=False) if key in ("parents", "recipe", "metadata") else value
        for key, value in values.items()
        if value is not None
    }
    if not connection.execute(select(tables.given.c.record_id).where(tables.given.c.record_id == record_id)).first():
        connection.execute(insert(tables.given).values(record_id=record_id, **said))
    elif said:
        connection.execute(update(tables.given).where(tables.given.c.record_id == record_id).values(**said))


def put_name(connection: Connection, record_id: str, name: str, shelf: str) -> None:
    """Give a record a name. One of the same shelf that had it keeps it as `name@<when it was registered>`."""
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
    """Let `name@alias` mean this record, and no other any more."""
    connection.execute(delete(tables.alias).where(tables.alias.c.name == name, tables.alias.c.alias == alias))
    connection.execute(insert(tables.alias).values(name=name, alias=alias, record_id=record_id))


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
    """Take everything about a record out of the index."""
    for table in tables.OF_A_RECORD:
        connection.execute(delete(table).where(table.c.record_id == record_id))
    connection.execute(delete(tables.record).where(tables.record.c.id == record_id))


# --- hashes of files, by what the system says of them


def cached_hashes(connection: Connection, places: Iterable[Place]) -> dict[str, tuple[Hashes, dict[str, Any]]]:
    """Path -> (hashes, what was learned) of the files that were hashed and have not changed since."""
    wanted = list(places)
    known = {
        tuple(getattr(row, name) for name in KEY): row
        for row in _rows(connection, tables.file_hash, tables.file_hash.c.inode, {p.inode for p in wanted})
    }
    found: dict[str, tuple[Hashes, dict[str, Any]]] = {}
    for place in wanted:
        row = known.get(tuple(getattr(place, name) for name in KEY))
        if row is not None:
            found[place.path] = (Hashes(**json.loads(row.hashes)), json.loads(row.learned))
    return found


KEY = ("device", "inode", "bytes", "mtime_ns", "ctime_ns")


def cache_hashes(connection: Connection, place: Place, hashes: Hashes, learned: Mapping[str, Any]) -> None:
    """Keep a file's hashes for as long as the system says that it has not changed."""
    table = tables.file_hash
    key = {name: getattr(place, name) for name in KEY}
    connection.execute(delete(table).where(*(getattr(table.c, name) == value for name, value in key.items())))
    connection.execute(insert(table).values(**key, hashes=json.dumps(asdict(hashes)), learned=json.dumps(dict(learned))))


# --- looking up


def is_known(connection: Connection, place: Place) -> bool:
    """Whether the index knows this file as it is now."""
    row = connection.execute(select(tables.location).where(tables.location.c.path == place.path)).first()
    return row is not None and (row.bytes, row.device, row.inode, row.mtime_ns, row.ctime_ns) == place.signature


def ids_by_path(connection: Connection, path: str) -> list[str]:
    """The record that lies there, if one is known."""
    return [str(row.record_id) for row in connection.execute(select(tables.location.c.record_id).where(tables.location.c.path == path))]


def ids_by_paths(connection: Connection, paths: Collection[str]) -> dict[str, str]:
    """Path -> the record that lies there, of those that are known."""
    return {row.path: row.record_id for row in _rows(connection, tables.location, tables.location.c.path, paths)}


def ids_that_are(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of the ids that have a record."""
    return {str(row.id) for row in _rows(connection, tables.record, tables.record.c.id, ids)}


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
    """(records that were given this name and still have it, records whose file is called so and have no given name)."""
    names = tables.given_name
    given = [str(row.record_id) for row in connection.execute(select(names.c.record_id).where(names.c.name == name, names.c.current == 1))]
    named = select(names.c.record_id).where(names.c.record_id == tables.record.c.id).exists()
    stems = connection.execute(select(tables.record.c.id).where(tables.record.c.stem == name, ~named))
    return given, [str(row.id) for row in stems]


def ids_by_alias(connection: Connection, name: str, alias: str) -> list[str]:
    """The record that `name@alias` means."""
    table = tables.alias
    return [str(row.record_id) for row in connection.execute(select(table.c.record_id).where(table.c.name == name, table.c.alias == alias))]


def all_names(connection: Connection) -> set[str]:
    """Every name a reference may use: given names, file names, `name@alias`."""
    names = {str(row.name) for row in connection.execute(select(tables.given_name.c.name))}
    names |= {str(row.stem) for row in connection.execute(select(tables.record.c.stem))}
    return names | {f"{row.name}@{row.alias}" for row in connection.execute(select(tables.alias.c.name, tables.alias.c.alias))}


def mark_missing(connection: Connection, paths: Iterable[str], missing: bool) -> None:
    """Say that places are empty, or filled again."""
    rows = [{"which": path} for path in paths]
    if rows:
        connection.execute(update(tables.location).where(tables.location.c.path == bindparam("which")).values(missing=int(missing)), rows)
