"""Scores that are computed after a grid was drawn, put into the data of its page; nothing else of the page changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer.output.gallery import Score
from registry.formats.atomic_file import write_text
from registry.plain_values import from_json
from registry.printable import script_json

DATA = re.compile(r'(<script id="data" type="application/json">)(.*?)(</script>)', re.DOTALL)  # no text in it can hold the end
VERSION = "1"  # of the form of data.py
LARGEST = 1 << 30  # bytes


@dataclass(frozen=True)
class ScoredCell:
    """The scores of a cell, and the details that stand beside them."""

    key: str
    scores: Mapping[str, float]
    details: Mapping[str, str]


def add_scores(page: Path, scores: Sequence[Score], cells: Sequence[ScoredCell]) -> bool:
    """Show the scores in the page, in place of others of their names; False where it is no page of these cells, and stays as it is."""
    if not page.is_file() or page.stat().st_size > LARGEST:
        return False
    text = page.read_text(encoding="utf-8")
    found = DATA.search(text)
    if found is None:
        return False
    try:
        data = from_json(found[2])
        if data["grid"] != VERSION or not _changed(data, scores, cells):
            return False
    except (ValueError, KeyError, TypeError, LookupError, AttributeError):
        return False  # a page of another version, or changed by hand
    write_text(page, text[: found.start(2)] + script_json(data) + text[found.end(2) :])
    return True


def _changed(data: dict[str, Any], scores: Sequence[Score], cells: Sequence[ScoredCell]) -> bool:
    names = {one.name for one in scores}
    data["scores"] = [one for one in data["scores"] if one["name"] not in names]
    data["scores"] += [{"name": one.name, "definition": one.definition, "better": one.better} for one in scores]
    first = {cell.key: cell for cell in reversed(cells)}  # an image made elsewhere has one line for several places
    numbers = {text: number for number, text in reversed([*enumerate(data["texts"])])}
    for index, row in enumerate(data["cells"]):
        cell = cells[index] if index < len(cells) and cells[index].key == row["key"] else first.get(row["key"])
        if cell is None:
            return False
        row["scores"] = {name: value for name, value in row["scores"].items() if name not in names} | dict(cell.scores)
        if cell.details:
            row["details"] = _with_details(data, row["details"], cell.details, numbers)
    return True


def _with_details(data: dict[str, Any], table: int, details: Mapping[str, str], numbers: dict[str, int]) -> int:
    """The number of a table that has these details too."""

    def number(text: str) -> int:
        if text not in numbers:
            numbers[text] = len(data["texts"])
            data["texts"].append(text)
        return numbers[text]

    known = data["tables"][table]
    pairs = dict(zip(known[::2], known[1::2], strict=True)) | {number(name): number(text) for name, text in details.items()}
    data["tables"].append([one for pair in pairs.items() for one in pair])
    return len(data["tables"]) - 1
