"""Shows Records as text or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.printable import as_lines

if TYPE_CHECKING:
    from registry.record import Record

DIGITS = 12  # of a hash, in text
WIDEST = 60  # characters of a column: one long name does not push all rows apart


def answer(record: Record, arguments: argparse.Namespace) -> int:
    """Show one Record, as a document or as lines."""
    if arguments.json:
        console.answer_json(record.to_json())
        return 0
    apart = ("hashes", "files", "metadata", "parents", "recipe")
    rows = [(name, _cell(value)) for name, value in record.to_json().items() if name not in apart]
    rows += list(asdict(record.hashes).items())
    rows += [(f"made from {parent.get('role')}", f"{parent.get('ref') or ''} {_short(parent.get('sha256'))}") for parent in record.parents]
    rows += [("recipe", f"{len(record.recipe)} settings; --json shows them" if record.recipe else None)]
    rows += [("path", record.path), ("size", console.spell_bytes(sum(entry.bytes for entry in record.files)))]
    shown = [(name, value) for name, value in rows if value]
    width = max(len(name) for name, _ in shown)
    console.answer_lines(as_lines(f"{name.ljust(width)}  {value}" for name, value in shown))
    return 0


def _cell(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None) or None
    if isinstance(value, (list, tuple)):
        return (
            "; ".join(f"{item['code']}: {item['message']}" if isinstance(item, Mapping) and "code" in item else str(item) for item in value)
            or None
        )
    return None if value is None else str(value)


def _short(digest: Any) -> str:
    return f"sha256:{str(digest)[:DIGITS]}" if digest else ""


def answer_all(records: list[Record], arguments: argparse.Namespace) -> int:
    """Show Records, as one document or as a table."""
    if arguments.json:
        console.answer_json([record.to_json() for record in records])
    else:
        show_table(records)
    return 0


def show_table(records: Iterable[Record]) -> None:
    """Show Records as a table."""
    rows = (
        [
            record.name,
            record.kind,
            record.family or "|".join(record.candidates) or "?",
            record.rank,
            record.dtype,
            console.spell_bytes(sum(entry.bytes for entry in record.files)) if record.files else "",
            " ".join(record.tags),
            " ".join(warning.code for warning in record.warnings),
        ]
        for record in records
    )
    console.answer_table(["name", "kind", "family", "rank", "dtype", "size", "tags", "warnings"], rows, widest=WIDEST)
