"""Full-text search over everything that is known of a model, the same on every database.

The database narrows by the plain letters of each word; what is left is compared here, where case and accents are known.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from registry.index import database as tables
from registry.index import records
from registry.index.embedded import Embedded
from registry.record import Record

PLAIN = re.compile(r"[a-z0-9_.-]+")  # letters that every database lowers alike, and JSON writes as they are
TEXTS = (
    (tables.record.c.id, (tables.record.c.data, tables.record.c.kind)),
    (tables.location.c.record_id, (tables.location.c.path,)),
    (tables.label.c.record_id, (tables.label.c.value,)),
    (tables.given_name.c.record_id, (tables.given_name.c.name,)),
    (tables.alias.c.record_id, (tables.alias.c.name, tables.alias.c.alias)),
    (
        tables.given.c.record_id,
        tuple(tables.given.c[name] for name in ("kind", "family", "variant", "prediction", "licence", "notes", "metadata")),
    ),
    (tables.content.c.record_id, (tables.content.c.hashes, tables.content.c.learned)),
)


def search(connection: Connection, embedded: Embedded, words: Sequence[str]) -> list[Record]:
    """Records that hold every word, in whatever case; those that hold them in their name first, then in what people said."""
    wanted = [_plain(word) for word in words]
    found = [*embedded.records(connection), *records.load(connection, _narrowed(connection, wanted))]
    ranked = [(rank, record) for record in found if (rank := _rank(record, wanted)) is not None]
    return [record for _, record in sorted(ranked, key=lambda one: one[0])]  # a stable sort: oldest first among equals


def _narrowed(connection: Connection, wanted: Sequence[str]) -> set[str] | None:
    """Ids of the records that may hold every word; None where a word has no letter that the database can look for."""
    found: set[str] | None = None
    for word in wanted:
        run = max(PLAIN.findall(word), key=len, default="")
        if not run:
            continue
        ids: set[str] = set()
        for column, texts in TEXTS:
            for text in texts:
                like = func.lower(text).contains(run, autoescape=True)
                ids |= {str(row[0]) for row in connection.execute(select(column).where(like))}
        found = ids if found is None else found & ids
    return found


def _rank(record: Record, wanted: Sequence[str]) -> int | None:
    """0: all words in its names; 1: in what people said; 2: anywhere; None: not all of them."""
    names = _plain("\n".join([record.name, *record.aliases]))
    if all(word in names for word in wanted):
        return 0
    said = names + "\n" + _plain("\n".join([*record.tags, *record.triggers, record.notes or "", record.licence or ""]))
    if all(word in said for word in wanted):
        return 1
    seen = [record.kind, record.family, record.variant, record.dialect, record.prediction.value, *record.algorithms]
    text = said + "\n" + _plain("\n".join(str(one) for one in [*seen, record.path, *vars(record.hashes).values()] if one))
    text += "\n" + _plain("\n".join(_flat(record.metadata)))
    return 2 if all(word in text for word in wanted) else None


def _flat(value: Any) -> Iterator[str]:
    """Every key and value of nested metadata."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _flat(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield str(value)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()
