"""A finished grid read back from its folder: each cell with its image, its axis values as they are spelt, and its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from infer.grid.axes import axis_of, is_axis
from registry.errors import BadFile, Faults, LoomError, NotFound
from registry.plain_values import from_json
from registry.printable import one_line

LARGEST = 1 << 29  # bytes of cells.jsonl
MOST_FAULTS = 10
LONGEST = 1 << 14  # pixels a side


@dataclass(frozen=True)
class Outside:
    """An image made elsewhere: the name of its column, the axis whose place that is, and the size in pixels at which votes show it."""

    name: str
    column: str
    box: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """One cell; `values` has each axis as a person spells it, `files` the hashes of its adapters."""

    key: str
    image: Path | None
    values: Mapping[str, str]
    scores: Mapping[str, float] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    prompt: str | None = None
    render: Mapping[str, Any] = field(default_factory=dict, repr=False)  # its settings, as in cells.jsonl
    outside: Outside | None = None  # of an image made elsewhere
    seconds: float | None = None  # that drawing it took in that run; None: it was not drawn in it


@dataclass(frozen=True, kw_only=True)
class FinishedGrid:
    """The cells of a grid in their order; `axes` are those with more than one value."""

    folder: Path
    cells: tuple[GridCell, ...]
    axes: tuple[str, ...]


def read_grid(folder: Path) -> FinishedGrid:
    """The grid of a run folder of `loraloom grid`. Raises NotFound, or Faults with the lines of cells.jsonl that are none."""
    path = folder / "cells.jsonl"
    if not folder.is_dir():
        why = "is a file" if folder.is_file() else "there is no such folder"
        raise NotFound(f"{one_line(folder)}: {why}. Give the folder that `loraloom grid` printed, runs/<name>/<stamp>.")
    if not path.is_file():
        raise NotFound(f"{one_line(folder)} is not the folder of a grid: it has no cells.jsonl. Give runs/<name>/<stamp>.")
    if path.stat().st_size > LARGEST:
        raise BadFile(path, "too-large", f"has more than {LARGEST:,} bytes.")
    cells, faults = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                cells.append(_cell(from_json(line), folder))
            except (ValueError, KeyError, TypeError) as error:
                faults.append(f"line {number}: {_reason(error)}")
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise Faults(f"{one_line(path)} has lines that are no cells:", [*faults[:MOST_FAULTS], *more])
    names = dict.fromkeys(name for cell in cells for name in cell.values)
    varied = tuple(name for name in names if len({cell.values.get(name) for cell in cells}) > 1)
    return FinishedGrid(folder=folder, cells=tuple(cells), axes=varied)


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else one_line(error)[:200]


def _cell(entry: Any, folder: Path) -> GridCell:
    if not isinstance(entry, dict):
        raise ValueError("a cell is an object")
    key, image, axes, scores = entry["key"], entry["image"], entry["axes"], entry["scores"]
    if not isinstance(key, str) or not 0 < len(key) <= 128:
        raise ValueError("key is not a text of 1 to 128 characters")
    if not isinstance(axes, dict) or not isinstance(scores, dict):
        raise ValueError("axes and scores are objects")
    return GridCell(
        key=key,
        image=None if image is None else _inside(image, folder),
        values={name: _spelt(name, value) for name, value in axes.items()},
        scores={name: float(value) for name, value in scores.items() if _is_number(value)},
        files=_adapters(entry.get("render")),
        prompt=_prompt(entry.get("render"), axes),
        render=entry["render"] if isinstance(entry.get("render"), dict) else {},
        outside=_outside(entry.get("outside"), axes),
        seconds=float(entry["seconds"]) if entry.get("status") == "rendered" and _is_number(entry.get("seconds")) else None,
    )


def _outside(value: Any, axes: Any) -> Outside | None:
    if value is None:
        return None
    name, column, box = value["name"], value["column"], value["box"]
    sides = isinstance(box, list) and len(box) == 2 and all(type(side) is int and 0 < side <= LONGEST for side in box)
    if not isinstance(name, str) or column not in axes or not sides:
        raise ValueError("outside is no image made elsewhere: it has a name, a column among the axes, and a box of pixels")
    return Outside(name, column, (box[0], box[1]))


def _inside(image: Any, folder: Path) -> Path:
    """The path of an image in the grid's own folder."""
    inner = PurePosixPath(image) if isinstance(image, str) else None
    if inner is None or inner.is_absolute() or ".." in inner.parts or not inner.parts or "\0" in str(inner):
        raise ValueError("image is not a path inside the grid's folder")
    path = folder.joinpath(*inner.parts)
    if not path.resolve().is_relative_to(folder.resolve()):  # through a link
        raise ValueError("image is not a path inside the grid's folder")
    return path


def _prompt(render: Any, axes: Any) -> str | None:
    found = axes.get("prompt", render.get("prompt") if isinstance(render, dict) else None)
    return found if isinstance(found, str) and found.strip() else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _spelt(name: str, value: Any) -> str:
    """The value of an axis as the grid's labels have it."""
    value = tuple(value) if isinstance(value, list) else value
    if is_axis(name):
        try:
            return str(axis_of(name).spell(value))
        except (LoomError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
            pass  # a file of another version: its own text
    return str(value)


def _adapters(render: Any) -> tuple[str, ...]:
    """The hashes of the adapters' files, without their weights."""
    rows = render.get("adapters") if isinstance(render, dict) else None
    return tuple(str(row["sha256"]) for row in rows if isinstance(row, dict) and row.get("sha256")) if isinstance(rows, list) else ()
