"""metadata.jsonl, .csv and .parquet, as `datasets`' imagefolder reads them: one row an image."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.names import suggest
from registry.plain_values import from_json
from registry.typed_values import shown

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CAPTION_COLUMNS = ("text", "caption", "prompt")  # looked for in a table when data.caption_column is not set
NO_CAPTIONS = "none"  # data.caption_column of a set that is trained with the trigger alone
CAPTION_LIKE = ("text", "capt", "prompt", "desc", "tag", "label", "title")  # parts of names of columns that may hold captions


def read_rows(table: Path, *, image_column: str | None, caption_column: str | None) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    """(file name, captions) of each row, and the faults: then there are no rows. A caption column may be absent altogether."""
    try:
        rows = _READERS[table.suffix.lower()](table)
    except Exception as error:  # csv, json and arrow each raise their own
        return [], [f"{table.name}: cannot be read ({error})"]
    if not rows:
        return [], [f"{table.name}: has no rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    image = image_column or "file_name"
    if image not in columns:
        return [], [f"{table.name}: has no column {image!r} (data.image_column). {suggest(image, columns)}"]
    caption, fault = caption_column_of([name for name in columns if name != image], caption_column, where=table.name)
    if fault:
        return [], [fault]
    found: list[tuple[str, tuple[str, ...]]] = []
    faults: list[str] = []
    for number, row in enumerate(rows, 1):
        where = f"{table.name}, row {number}"
        captions: tuple[str, ...] = ()
        if not isinstance(row.get(image), str):
            faults.append(f"{where}: {image!r} is {row.get(image)!r}, expected text")
        if caption is not None:
            captions, fault = texts_of(row.get(caption), where=f"{where}: {caption!r}")
            faults += [fault] if fault else []
        found.append((str(row.get(image)), captions))
    return ([] if faults else found), faults


def texts_of(value: Any, *, where: str) -> tuple[tuple[str, ...], str | None]:
    """(the captions that a value is, a fault): a text, or a list of texts, which are several captions of one image."""
    if isinstance(value, str):
        return (value,), None
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value):
        return tuple(value), None
    return (), f"{where} is {shown(value)}, expected text or a list of texts"


def caption_column_of(columns: Sequence[str], given: str | None, *, where: str) -> tuple[str | None, str | None]:
    """(the caption column or None, a fault or None). Columns that may hold captions are never left out unseen."""
    if given == NO_CAPTIONS and given not in columns:
        return None, None
    if given is not None:
        if given in columns:
            return given, None
        return None, f"{where}: has no column {given!r} (data.caption_column). {suggest(given, columns)}"
    there = [name for name in CAPTION_COLUMNS if name in columns]
    if len(there) > 1:
        return None, f"{where}: has the columns {' and '.join(there)}; choose one with data.caption_column"
    if not there:
        like = [name for name in columns if any(part in name.casefold() for part in CAPTION_LIKE)]
        if like:
            return None, (
                f"{where}: has no column text, caption or prompt, but {' and '.join(like)}, which may hold captions and would not be read."
                f" Choose one with data.caption_column, or data.caption_column={NO_CAPTIONS} for a set without captions"
            )
    return (there[0] if there else None), None


def _read_jsonl(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue  # a row ends with a line feed alone: JSON may hold U+2028 and U+0085 as they are
        try:
            row = from_json(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: list[Mapping[str, Any]] = list(csv.DictReader(file, strict=True))
    ragged = [number for number, row in enumerate(rows, 1) if None in row]
    if ragged:
        raise ValueError(f"row {ragged[0]} has more fields than the heading; quote captions that hold commas")
    return rows


def _read_parquet(path: Path) -> list[Mapping[str, Any]]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(path).to_pylist())


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
