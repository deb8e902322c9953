"""Scores of a finished grid's images: what is kept is looked up, the rest is computed, and a failure costs one number.

Nothing is drawn: a score is a function of the finished images.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infer.output.gallery import Score
from infer.score.kept import KeptScores
from infer.score.paired import Difference, Scored, paired_differences
from infer.score.scorer import Found, Scorer, Value
from infer.score.subjects import Subjects
from infer.vote.finished import FinishedGrid
from registry.errors import LoomError
from registry.printable import counted, one_line
from registry.progress import Report, Tick, silent

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GridScores:
    """The scores of a grid's cells, in the order of its cells; None: the cell has no such number."""

    scorers: tuple[Scorer, ...]
    cells: tuple[Mapping[str, Found | None], ...]
    computed: int
    kept: int
    failed: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    def numbers(self, cell: int) -> dict[str, float | None]:
        """The scores of one cell, as cells.jsonl has them."""
        return {name: None if found is None else found.value for name, found in self.cells[cell].items()}

    def shown(self) -> tuple[Score, ...]:
        """The scores as a report describes them."""
        return tuple(shown_score(one) for one in self.scorers)

    def texts(self, cell: int) -> dict[str, str]:
        """The texts that stand beside the numbers of one cell, by a label."""
        return {f"score {name}": found.text for name, found in self.cells[cell].items() if found is not None and found.text}

    def to_json(self) -> dict[str, Any]:
        """`scores` of result.json: plain values with stable keys."""
        return {
            "definitions": [one.to_json() for one in self.scorers],
            "computed": self.computed,
            "kept": self.kept,
            "failed": self.failed,
            "means": self.means(),
            "differences": [one.to_json() for one in self.differences],
            "notes": list(self.notes),
        }

    def means(self) -> dict[str, float | None]:
        """The mean of each score over the cells that have it."""
        found: dict[str, float | None] = {}
        for one in self.scorers:
            values = [value.value for row in self.cells if (value := row.get(one.name)) is not None]
            found[one.name] = sum(values) / len(values) if values else None
        return found


def shown_score(one: Scorer) -> Score:
    """A score as a report describes it."""
    return Score(name=one.name, definition=f"{one.definition} Range: {one.unit}.", better=one.better)


@dataclass
class _Tally:
    computed: int = 0
    kept: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)


def score_grid(grid: FinishedGrid, scorers: Sequence[Scorer], home: Path, *, report: Report = silent) -> GridScores:
    """Every score of every cell that has an image. A score that fails on an image is None there, with a note."""
    subjects, tally = Subjects(grid, home), _Tally()
    columns = [_column(scorer, subjects, home, tally, report) for scorer in scorers]
    blank: dict[str, Found | None] = {one.name: None for one in scorers}
    cells = [
        blank | {one.name: column[number] for one, column in zip(scorers, columns, strict=True) if number in column}
        for number in range(len(grid.cells))
    ]
    drawn = [(cell, row) for cell, row in zip(grid.cells, cells, strict=True) if cell.outside is None]
    rows = [
        Scored(values=cell.values, scores={name: None if one is None else one.value for name, one in row.items()}) for cell, row in drawn
    ]
    return GridScores(
        scorers=tuple(scorers),
        cells=tuple(cells),
        computed=tally.computed,
        kept=tally.kept,
        failed=tally.failed,
        differences=paired_differences(rows, [one.name for one in scorers]),
        notes=tuple(dict.fromkeys([*(note for one in scorers for note in one.notes), *tally.notes])),
    )


def _column(scorer: Scorer, subjects: Subjects, home: Path, tally: _Tally, report: Report) -> dict[int, Found | None]:
    """One score of all cells, by their number."""
    kept, opened, lacking = KeptScores(home, scorer), _Once(scorer), 0
    column: dict[int, Found | None] = {}
    try:
        for done, number in enumerate(subjects.numbers, 1):
            try:
                subject = subjects.at(number)
                inputs = scorer.inputs(subject)
                if inputs is None:
                    lacking += 1
                    column[number] = None
                elif (known := kept.get(subject, inputs)) is not None:
                    tally.kept += 1
                    column[number] = known
                else:
                    column[number] = found = _checked(opened()(subject))
                    tally.computed += 1
                    kept.add(subject, inputs, found)
            except Exception as error:  # one image that a model does not take costs one number
                tally.failed += 1
                column[number] = None
                reason = str(error) if isinstance(error, LoomError) else f"{type(error).__name__}: {error}"
                tally.notes.append(f"score {scorer.name} failed on an image: {one_line(reason)[:300]}")
                LOG.debug("A score failed", exc_info=error)
            report(Tick(f"score {scorer.name}", done, len(subjects.numbers)))
    finally:
        kept.save()
    if lacking:
        tally.notes.append(
            f"score {scorer.name}: {lacking} of {counted(len(subjects.numbers), 'image')} "
            f"{'has' if lacking == 1 else 'have'} no number, since {scorer.lacks}."
        )
    return column


class _Once:
    """A score's function, opened when it is first called for."""

    def __init__(self, scorer: Scorer) -> None:
        self._open: Callable[[], Value] = scorer.open
        self._value: Value | None = None

    def __call__(self) -> Value:
        if self._value is None:
            self._value = self._open()
        return self._value


def _checked(found: Found) -> Found:
    if not math.isfinite(found.value):
        raise ValueError(f"the number is {found.value}")
    return found
