"""What each value of an axis does to a score: paired differences to the axis's first value, with intervals over prompts.

A pair is two cells that differ in the axis alone: the same prompt, seed and all else. Prompts are what the interval is over: pairs of one
prompt depend on one another, so that a bootstrap draws whole prompts. In a grid of one prompt it draws seeds, and says nothing of others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infer.score.dimensions import SETTING, Dimension, dimensions
from infer.score.intervals import clustered


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value of an axis against the axis's first value, by one score. `low` and `high` are None where there are too few groups."""

    score: str
    axis: str
    first: str
    value: str
    pairs: int
    groups: int  # prompts, or seeds of the one prompt
    over: str | None  # "prompt", "seed"; None: neither varies
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """higher, lower, cannot tell."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "cannot tell"
        return "higher" if self.low > 0 else "lower"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A cell of a grid by its axis values, and its scores."""

    values: Mapping[str, str]
    scores: Mapping[str, float | None]


def paired_differences(cells: Sequence[Scored], names: Sequence[str]) -> tuple[Difference, ...]:
    """Every score, along every axis but prompt and seed, each value against the first one."""
    sides = dimensions([cell.values for cell in cells])
    over = next((name for name in ("prompt", "seed") if any(name in side.axes for side in sides)), None)
    found = []
    for name in names:
        for side in (side for side in sides if not set(side.axes) & set(SETTING)):
            found += _along(name, side, over, cells)
    return tuple(found)


def _along(name: str, side: Dimension, over: str | None, cells: Sequence[Scored]) -> list[Difference]:
    blocks: dict[tuple[tuple[str, str], ...], dict[tuple[str, ...], float]] = defaultdict(dict)
    for cell in cells:
        at, score = side.of(cell.values), cell.scores.get(name)
        if at is not None and score is not None:
            rest = tuple(sorted((axis, value) for axis, value in cell.values.items() if axis not in side.axes))
            blocks[rest][at] = score
    first, *others = side.values
    found = []
    for value in others:
        groups: dict[str, list[float]] = defaultdict(list)
        for rest, row in blocks.items():
            if first in row and value in row:
                groups[dict(rest).get(over or "", "")].append(row[value] - row[first])
        if not groups:
            continue
        interval = clustered(list(groups.values()))
        found.append(
            Difference(
                score=name,
                axis=side.name,
                first=", ".join(first),
                value=", ".join(value),
                pairs=sum(map(len, groups.values())),
                groups=len(groups),
                over=over,
                mean=interval.value,
                low=interval.low,
                high=interval.high,
            )
        )
    return found
