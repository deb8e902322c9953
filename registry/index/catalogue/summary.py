"""What listings filter and sort by, of every record, from columns alone: no record is composed for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from registry.index import database as tables
from registry.index.records import shown_name
from registry.record import Record


@dataclass(frozen=True, slots=True)
class Summary:
    """A record as listings filter and sort it."""

    id: str
    name: str
    kind: str
    family: str | None
    rank: int | None
    licence: str | None
    tags: tuple[str, ...]
    warnings: tuple[str, ...]  # codes
    bytes: int
    created: str

    @property
    def missing(self) -> bool:
        return "missing" in self.warnings


def summary_of(record: Record) -> Summary:
    """The same of a composed record: the embedded ones are in no table."""
    return Summary(
        record.id,
        record.name,
        record.kind,
        record.family,
        record.rank,
        record.licence,
        record.tags,
        tuple(warning.code for warning in record.warnings),
        sum(entry.bytes for entry in record.files),
        record.created or "",
    )


def summaries(connection: Connection) -> list[Summary]:
    """Of every record in the index."""
    table, given = tables.record, tables.given
    shown = [func.coalesce(given.c[name], table.c[name]) for name in ("kind", "family", "licence")]
    columns: list[Any] = [table.c.id, table.c.stem, *shown, table.c.rank, table.c.codes, table.c.bytes, table.c.created]
    query = select(*columns).outerjoin(given, given.c.record_id == table.c.id)
    names, aliases, tags, more = _names(connection), _aliases(connection), _tags(connection), _more_codes(connection)
    found = []
    for id_, stem, kind, family, licence, rank, codes, size, created in connection.execute(query):
        warnings = (*codes.split(), *more.get(id_, ())) if codes or id_ in more else ()
        name = shown_name(stem, names.get(id_, ()), aliases.get(id_, ())) if id_ in names else stem
        found.append(
            Summary(id_, name, sys.intern(kind), family, rank, licence, tags.get(id_, ()), warnings, size or 0, sys.intern(created or ""))
        )
    return found


def _names(connection: Connection) -> Mapping[str, Sequence[Row[Any]]]:
    return _by_record(connection.execute(select(tables.given_name)).all())


def _aliases(connection: Connection) -> Mapping[str, Sequence[Row[Any]]]:
    return _by_record(connection.execute(select(tables.alias)).all())


def _by_record(rows: Sequence[Row[Any]]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.record_id, []).append(row)
    return found


def _tags(connection: Connection) -> Mapping[str, tuple[str, ...]]:
    table = tables.label
    found: dict[str, tuple[str, ...]] = {}
    for id_, value in connection.execute(select(table.c.record_id, table.c.value).where(table.c.kind == "tag").order_by(table.c.value)):
        found[id_] = (*found.get(id_, ()), sys.intern(value))
    return found


def _more_codes(connection: Connection) -> Mapping[str, list[str]]:
    """Codes of warnings that are not of the header: what only the whole file shows, files that are gone, files that are there twice."""
    record, place, content = tables.record, tables.location, tables.content
    found: dict[str, list[str]] = {}
    warned = select(content.c.record_id, content.c.learned).where(content.c.learned.contains('"code"', autoescape=True))
    for id_, learned in connection.execute(warned):
        found.setdefault(id_, []).extend(str(one["code"]) for one in json.loads(learned).get("warnings", ()))
    there = select(place.c.path).where(place.c.record_id == record.c.id, place.c.missing == 0)
    for (id_,) in connection.execute(select(record.c.id).where(~there.exists())):
        found.setdefault(id_, []).append("missing")
    for column in (content.c.sha256, content.c.content_sha256):
        several = select(column).where(column.is_not(None)).group_by(column).having(func.count() > 1)
        for (id_,) in connection.execute(select(content.c.record_id).where(column.in_(several))):
            codes = found.setdefault(id_, [])
            if "duplicate" not in codes:
                codes.append("duplicate")
    return found
