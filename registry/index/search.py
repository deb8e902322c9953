"""Full-text search over all facts and annotations of a model, the same on every database.

The database filters by the ASCII letters of each word; the rest is compared here, with case and accents.
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
from registry.index.listing import Listing
from registry.record import Record

PLAIN = re.compile(r"[a-z0-9_.-]+")  # characters that every database lower-cases and JSON does not escape
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


def search(connection: Connection, embedded: Embedded, words: Sequence[str]) -> Listing:
    """Records that contain every word, ignoring case; matches in names first, then in annotations, the oldest first among equals."""
    wanted, own = [_plain(word) for word in words], embedded.records(connection)
    named, ids = {record.id: record.name for record in own}, records.named(connection, ids=_narrowed(connection, wanted))
    named |= dict(ids)
    ranks = dict.fromkeys((id_ for id_, name in named.items() if all(word in _plain(name) for word in wanted)), 0)
    for record in Listing(connection, [id_ for id_ in named if id_ not in ranks], own):
        if (rank := _rank(record, wanted)) is not None:
            ranks[record.id] = rank
    return Listing(connection, sorted((id_ for id_ in named if id_ in ranks), key=ranks.__getitem__), own)


def search_ranks(connection: Connection, embedded: Sequence[Record], names: Mapping[str, str], words: Sequence[str]) -> dict[str, int]:
    """Id -> rank (0: by its names) of the records that `search` finds. `names` has all of the index: what a name shows is not composed."""
    wanted = [_plain(word) for word in words]
    narrowed = _narrowed(connection, wanted)
    ids = names.keys() if narrowed is None else narrowed & names.keys()
    named = {id_ for id_ in ids if all(word in name for name in (_plain(names[id_]),) for word in wanted)}
    rest = Listing(connection, [*(record.id for record in embedded), *(ids - named)], embedded)
    ranks = {record.id: rank for record in rest if (rank := _rank(record, wanted)) is not None}
    return dict.fromkeys(named, 0) | ranks


def _narrowed(connection: Connection, wanted: Sequence[str]) -> set[str] | None:
    """Ids of the records that may contain every word; None where no word has an ASCII letter."""
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
    """0: all words in its names; 1: in annotations; 2: anywhere; None: not all of them."""
    names = _plain("\n".join([record.name, *record.aliases]))
    if all(word in names for word in wanted):
        return 0
    annotated = names + "\n" + _plain("\n".join([*record.tags, *record.triggers, record.notes or "", record.licence or ""]))
    if all(word in annotated for word in wanted):
        return 1
    seen = [record.kind, record.family, record.variant, record.dialect, record.prediction.value, *record.algorithms]
    text = annotated + "\n" + _plain("\n".join(str(one) for one in [*seen, record.path, *vars(record.hashes).values()] if one))
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
