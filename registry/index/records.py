"""Records composed from the index: facts from the headers, overlaid with annotations."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, select

from registry.index import database as tables
from registry.index.overrides import apply_overrides
from registry.index.rows import MANY, select_many
from registry.record import FileEntry, Hashes, Record, Warn
from registry.references import without_alias


@dataclass
class Annotated:
    """The rows of some records beside their header facts, by record id."""

    places: dict[str, list[Row[Any]]]
    contents: dict[str, Row[Any]]
    given: dict[str, Row[Any]]
    names: dict[str, list[Row[Any]]]
    aliases: dict[str, list[Row[Any]]]
    labels: dict[str, list[Row[Any]]]


def load(connection: Connection, ids: Collection[str] | None = None) -> list[Record]:
    """The Records of these ids, or all of them, oldest first."""
    rows = select_many(connection, tables.record, tables.record.c.id, ids)
    extra = gather(connection, [row.id for row in rows] if ids is not None else None)
    records = [_placed(compose(_derived(row), extra), extra.places.get(row.id, [])) for row in rows]
    return sorted(_with_twins(connection, records), key=lambda record: (record.created or "", record.name))


def listed(connection: Connection, *, kind: str | None = None, family: str | None = None, tag: str | None = None) -> list[str]:
    """The ids of the records that are shown with this kind, family and tag, in the order of `load`; no record is composed for it."""
    return [id_ for id_, _ in named(connection, kind=kind, family=family, tag=tag)]


def named(
    connection: Connection,
    *,
    ids: Collection[str] | None = None,
    kind: str | None = None,
    family: str | None = None,
    tag: str | None = None,
) -> list[tuple[str, str]]:
    """(id, name) of the same, or of those of these ids among them."""
    table, given, label = tables.record, tables.given, tables.label
    wanted = select(table.c.id, table.c.created, table.c.stem)
    if kind is not None or family is not None:
        wanted = wanted.outerjoin(given, given.c.record_id == table.c.id)
    for name, value in (("kind", kind), ("family", family)):
        if value is not None:
            wanted = wanted.where(func.coalesce(given.c[name], table.c[name]) == value)
    if tag is not None:
        tagged = select(label.c.record_id).where(label.c.record_id == table.c.id, label.c.kind == "tag", label.c.value == tag)
        wanted = wanted.where(tagged.exists())
    names, aliases = _grouped(connection, tables.given_name, ids), _grouped(connection, tables.alias, ids)
    some = None if ids is None else [*ids]
    queries = [wanted] if some is None else [wanted.where(table.c.id.in_(some[at : at + MANY])) for at in range(0, len(some), MANY)]
    found = [
        (sys.intern(created or ""), shown_name(stem, names.get(id_, ()), aliases.get(id_, ())), id_)
        for query in queries
        for id_, created, stem in connection.execute(query)
    ]
    return [(id_, name) for _, name, id_ in sorted(found)]


def _derived(row: Row[Any]) -> Record:
    return replace(Record.from_json({"id": row.id, "name": row.stem, **json.loads(row.data)}), created=row.created)


def gather(connection: Connection, ids: Collection[str] | None) -> Annotated:
    """The rows beside the derived facts of these records, or of all."""

    return Annotated(
        places=_grouped(connection, tables.location, ids),
        contents={key: rows[0] for key, rows in _grouped(connection, tables.content, ids).items()},
        given={key: rows[0] for key, rows in _grouped(connection, tables.given, ids).items()},
        names=_grouped(connection, tables.given_name, ids),
        aliases=_grouped(connection, tables.alias, ids),
        labels=_grouped(connection, tables.label, ids),
    )


def _grouped(connection: Connection, table: Any, ids: Collection[str] | None) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for row in select_many(connection, table, table.c.record_id, ids):
        found.setdefault(row.record_id, []).append(row)
    return found


def compose(derived: Record, extra: Annotated) -> Record:
    """The Record as it is shown: the header's facts overlaid with annotations."""
    given = extra.given.get(derived.id)
    labels = extra.labels.get(derived.id, [])
    values: dict[str, Any] = {
        "name": display_name(derived, extra),
        "aliases": _alias_names(derived, extra),
        "tags": tuple(sorted(row.value for row in labels if row.kind == "tag")),
        "triggers": tuple(dict.fromkeys([row.value for row in labels if row.kind == "trigger"] + list(derived.triggers))),
    }
    if given is not None:
        values |= {name: value for name in ("notes", "licence", "image") if (value := getattr(given, name)) is not None}
        values |= {"recipe": json.loads(given.recipe)} if given.recipe else {}
        values |= {"parents": tuple(json.loads(given.parents))} if given.parents else {}
        values |= {"metadata": {**derived.metadata, **json.loads(given.metadata)}} if given.metadata else {}
    values |= apply_overrides(derived, given, [row.value for row in labels if row.kind == "trigger"])
    record = replace(derived, **values)
    content = extra.contents.get(derived.id)
    return with_content(record, Hashes(**json.loads(content.hashes)), json.loads(content.learned)) if content is not None else record


def with_content(record: Record, hashes: Hashes, learned: Mapping[str, Any]) -> Record:
    """The Record with its hashes and the facts that only reading the whole file shows."""
    return replace(
        record,
        hashes=hashes,
        alpha=record.alpha if record.alpha is not None else learned.get("alpha"),
        metadata={**record.metadata, **learned.get("metadata", {})},
        warnings=(*record.warnings, *(Warn(**warning) for warning in learned.get("warnings", ()))),
    )


def _placed(record: Record, places: Sequence[Row[Any]]) -> Record:
    """With the newest existing path first, the others as copies, and a warning when none exists."""
    if not places:
        message = f"{record.path} holds another file now, or was moved. Scan the folder it moved to."
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
        values["warnings"] = (*record.warnings, missing_warning(first.path))
    return replace(record, **values)


def missing_warning(path: Path | str) -> Warn:
    """The warning of a record without a file."""
    return Warn(code="missing", message=f"{path} is not there any more. Scan the folder it moved to.")


def _with_twins(connection: Connection, records: list[Record]) -> list[Record]:
    """With a warning on each record whose weights another record has too, in any dialect."""
    table = tables.content
    ids_of: dict[tuple[str, str], set[str]] = {}
    for kind in ("sha256", "content_sha256"):
        wanted = {value for record in records if (value := getattr(record.hashes, kind))}
        for row in select_many(connection, table, getattr(table.c, kind), wanted):
            ids_of.setdefault((kind, getattr(row, kind)), set()).add(row.record_id)
    if all(len(ids) < 2 for ids in ids_of.values()):
        return records
    marked = []
    for record in records:
        same = ids_of.get(("sha256", record.hashes.sha256 or ""), set()) - {record.id}
        alike = ids_of.get(("content_sha256", record.hashes.content_sha256 or ""), set()) - {record.id} - same
        warnings = [Warn(code="duplicate", message=f"The same file is registered as {_names(connection, same)}.")] if same else []
        warnings += [Warn(code="duplicate", message=f"{_names(connection, alike)} holds the same weights.")] if alike else []
        marked.append(replace(record, warnings=(*record.warnings, *warnings)))
    return marked


def _names(connection: Connection, ids: set[str]) -> str:
    extra = gather(connection, ids)
    return ", ".join(sorted(display_name(_derived(row), extra) for row in select_many(connection, tables.record, tables.record.c.id, ids)))


def _moved(entry: FileEntry, old: str, new: str) -> FileEntry:
    return entry if old == new else FileEntry(path=new + entry.path.removeprefix(old), bytes=entry.bytes)


def display_name(derived: Record, extra: Annotated) -> str:
    """The newest current name; `name@alias` where another record took the name; else the file's."""
    return shown_name(derived.name, extra.names.get(derived.id, ()), extra.aliases.get(derived.id, ()))


def shown_name(stem: str, given: Sequence[Row[Any]], aliases: Sequence[Row[Any]]) -> str:
    """The same, of the file's name and the rows of the record's names and aliases."""
    names = sorted(given, key=lambda row: (-row.current, -row.turn))
    if not names:
        return stem
    if names[0].current:
        return str(names[0].name)
    alias = next((row.alias for row in aliases if row.name == names[0].name), None)
    return f"{names[0].name}@{alias}" if alias else str(names[0].name)


def _alias_names(derived: Record, extra: Annotated) -> tuple[str, ...]:
    """Aliases, as `name@alias` where they belong to another given name, and the record's other names."""
    name = display_name(derived, extra)
    others = {row.name for row in extra.names.get(derived.id, [])} - {without_alias(name)}
    aliases = extra.aliases.get(derived.id, [])
    found = [f"{row.name}@{row.alias}" if row.name in others else row.alias for row in aliases]
    found += [row.name for row in extra.names.get(derived.id, []) if row.current and row.name != name]
    return tuple(sorted(set(found)))
