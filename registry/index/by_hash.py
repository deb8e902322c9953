"""Records by the first digits of any hash that other programs write: sha256, AutoV1 to V3, kohya's, BLAKE3."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import Connection, select

from registry.formats.hashing import EMPTY_SHA256
from registry.index import database as tables
from registry.index import records, rows
from registry.record import Record

LEAST = 8  # digits: what A1111's oldest hash has


def records_by_hash(connection: Connection, embedded: Sequence[Record], digits: str) -> list[tuple[Record, str]]:
    """(record, name of its hash that begins so), those of the whole file first; records of one content once.

    `embedded` is the base that is in no index. A hash of nothing (AutoV1 of a file under 1 MiB) names no file.
    """
    digits = digits.lower()
    if not is_digits(digits) or digits.startswith(EMPTY_SHA256[:LEAST]):
        return []
    inside = select(tables.content.c.record_id).where(tables.content.c.hashes.contains(f'": "{digits}', autoescape=True))
    ids = {*rows.ids_by_sha256(connection, digits), *(str(row.record_id) for row in connection.execute(inside))}
    found = [*embedded, *records.load(connection, ids)]
    named = [(record, name) for record in found if (name := hash_name(record, digits)) is not None]
    once: dict[str | None, tuple[Record, str]] = {}
    for record, name in sorted(named, key=lambda pair: pair[1] != "sha256"):
        once.setdefault(record.hashes.sha256, (record, name))
    return list(once.values())


def ids_hashed_in_part(connection: Connection) -> list[str]:
    """Ids of the records of large files whose kohya and BLAKE3 nobody has asked for yet."""
    column = tables.content.c.hashes
    rows_in_part = select(tables.content.c.record_id).where(column.contains('"blake3": null'), ~column.contains('"autov1": null'))
    return [str(row.record_id) for row in connection.execute(rows_in_part)]


def is_digits(text: str) -> bool:
    """Whether a text may be the beginning of a hash."""
    return re.fullmatch(r"[0-9a-f]{8,64}", text.lower()) is not None


def hash_name(record: Record, digits: str) -> str | None:
    """The name of the record's hash that begins with these digits; None where none does."""
    return next((name for name, value in vars(record.hashes).items() if value and str(value).startswith(digits.lower())), None)
