"""`loraloom score`: scores of a finished grid's folder, written into its cells.jsonl and result.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer.output.page.scored import ScoredCell, add_scores
from infer.score.compute import GridScores, score_grid
from infer.score.given import OFFLINE, ready_scores
from infer.score.page import write_score_page
from infer.score.scorer import Scene
from infer.vote.finished import FinishedGrid, read_grid
from registry.errors import Refused
from registry.formats.atomic_file import write_json, write_text
from registry.plain_values import from_json, from_yaml
from registry.progress import Report, silent
from registry.store import Store

SECTION = "scores"  # of result.json
PAGE = "scores.html"


@dataclass(frozen=True, kw_only=True)
class ScoredGrid:
    """A grid's folder with the scores that it has now."""

    folder: Path
    grid: FinishedGrid
    scores: GridScores
    in_report: bool = False  # whether report.html shows them

    @property
    def page(self) -> Path:
        """Plots and definitions of all its scores."""
        return self.folder / PAGE

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {"grid": str(self.folder), "page": str(self.page), "cells": len(self.grid.cells), **self.scores.to_json()}


def score_finished(folder: Path, given: Sequence[object], store: Store, *, device: str = "cpu", report: Report = silent) -> ScoredGrid:
    """Compute scores of a finished grid and write them into its folder, beside those that it has. Raises Faults before that.

    Without any, those of the grid's own settings, else the ones that need nothing. A name that the grid has is replaced.
    """
    grid = read_grid(folder)
    wanted = list(given) or _own_scores(folder) or list(OFFLINE)
    scorers = ready_scores(wanted, scene_of(grid, store, device), try_models=False)
    found = score_grid(grid, scorers, store.home, report=report)
    write_scores(folder, found)
    rows = [_shown(cell.key, found, number) for number, cell in enumerate(grid.cells)]
    shown = add_scores(folder / "report.html", found.shown(), rows)
    return ScoredGrid(folder=folder, grid=grid, scores=found, in_report=shown)


def _shown(key: str, found: GridScores, number: int) -> ScoredCell:
    return ScoredCell(key, {name: value for name, value in found.numbers(number).items() if value is not None}, found.texts(number))


def scene_of(grid: FinishedGrid, store: Store | None, device: str) -> Scene:
    """What scores may ask of a finished grid."""
    drawn = [cell for cell in grid.cells if cell.outside is None]
    prompts = dict.fromkeys(cell.prompt for cell in drawn if cell.prompt is not None)
    adapters = dict.fromkeys(sha256 for cell in drawn for sha256 in cell.files)
    return Scene(prompts=tuple(prompts), axes=grid.axes, adapters=tuple(adapters), store=store, device=device)


def _own_scores(folder: Path) -> list[object]:
    """The setting `score` of the grid's config.yaml."""
    path = folder / "config.yaml"
    try:
        settings = from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    given = settings.get("score") if isinstance(settings, dict) else None
    return list(given) if isinstance(given, list) else [given] if given else []


def write_scores(folder: Path, found: GridScores) -> None:
    """The scores into cells.jsonl, then into result.json: each file is the old one or the new one."""
    lines = []
    rows = iter(range(len(found.cells)))
    for line in (folder / "cells.jsonl").read_bytes().split(b"\n"):
        if not line.strip():
            continue
        entry = from_json(line)
        entry["scores"] = {**entry["scores"], **found.numbers(next(rows))}
        lines.append(json.dumps(entry, ensure_ascii=False, default=str) + "\n")
    write_text(folder / "cells.jsonl", "".join(lines))
    path = folder / "result.json"
    section = found.to_json()
    if path.is_file():
        result = _result(path)
        section = merged(result.get(SECTION), found)
        write_json(path, {**result, SECTION: section})
    write_score_page(folder / PAGE, folder.parent.name, section)


def _result(path: Path) -> dict[str, Any]:
    try:
        found = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read ({error}). Draw the grid again.") from error
    if not isinstance(found, dict):
        raise Refused(f"{path} is no result of a grid. Draw the grid again.")
    return found


def merged(before: object, found: GridScores) -> dict[str, Any]:
    """The section of result.json: what it had of other scores, and these."""
    new = found.to_json()
    if not isinstance(before, dict):
        return new
    names = {one.name for one in found.scorers}
    try:
        definitions = [one for one in before["definitions"] if one["name"] not in names]
        differences = [one for one in before["differences"] if one["score"] not in names]
        means = {name: value for name, value in before["means"].items() if name not in names}
    except (KeyError, TypeError, AttributeError):
        return new
    return {
        **new,
        "definitions": [*definitions, *new["definitions"]],
        "means": {**means, **new["means"]},
        "differences": [*differences, *new["differences"]],
    }
