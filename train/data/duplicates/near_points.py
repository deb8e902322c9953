"""All pairs of points that are within reach of each other in every coordinate, by a grid over the coordinates that tell most apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

SLACK = 1.001  # of a cell's width over the largest reach: rounding moves no neighbour further than to the next cell
ENOUGH = 16  # pairs to look at for each point, from which on the grid has a coordinate more
DEEPEST = 5  # coordinates of the grid; a cell has 3 to the power of it neighbours
BLOCK = 1 << 19  # pairs that are looked at in one piece, 16 bytes each


def near_pairs(points: Any, reach: Any) -> Iterator[tuple[Any, Any]]:
    """(the ones, the others): pairs of the numbers of `points` (N, M), each once, that differ in no coordinate by more than either's reach.

    `reach` is (N,). They come in pieces of at most BLOCK.
    """
    import numpy

    if len(points) < 2:
        return
    axes = numpy.argsort(-points.std(0), kind="stable")
    width = float(reach.max()) * SLACK
    grid = None
    for depth in range(1, min(DEEPEST, points.shape[1]) + 1):
        grid = _Grid(points[:, axes[:depth]], width)
        if grid.pairs <= ENOUGH * len(points):
            break
    assert grid is not None
    columns = [numpy.ascontiguousarray(points[grid.order, axis]) for axis in axes]
    far = reach[grid.order]
    for ones, others in grid.neighbours():
        least = numpy.minimum(far[ones], far[others])
        for column in columns:
            near = numpy.abs(column[ones] - column[others]) <= least
            ones, others, least = ones[near], others[near], least[near]
        if len(ones):
            yield grid.order[ones], grid.order[others]


class _Grid:
    """Points sorted into cells of one width. Numbers are those of the sorted points; `order` gives the number each had before."""

    def __init__(self, points: Any, width: float) -> None:
        import numpy

        cells = numpy.floor(points.astype(numpy.float64) / width).astype(numpy.int64)
        cells -= cells.min(0)
        spans = cells.max(0) + 2  # a cell's neighbour behind the last one is none, and not the first of the next row
        steps = numpy.cumprod([1, *spans[:-1]])  # at most (255 / width) to the power of DEEPEST
        keys = cells @ steps
        self.order = numpy.argsort(keys, kind="stable")
        self._keys, self._starts, self._counts = numpy.unique(keys[self.order], return_index=True, return_counts=True)
        self._moves = sorted({int(move) for move in (numpy.array(list(product((-1, 0, 1), repeat=len(steps)))) @ steps) if move > 0})
        self.pairs = int((self._counts * (self._counts - 1) // 2).sum()) + sum(self._between(move)[2] for move in self._moves)

    def _between(self, move: int) -> tuple[Any, Any, int]:
        """(places of cells, places of the cells that many keys behind them, pairs of their points)."""
        import numpy

        behind = numpy.searchsorted(self._keys, self._keys + move)
        behind[behind == len(self._keys)] = 0
        there = numpy.flatnonzero(self._keys[behind] == self._keys + move)
        behind = behind[there]
        return there, behind, int((self._counts[there] * self._counts[behind]).sum())

    def neighbours(self) -> Iterator[tuple[Any, Any]]:
        """Pairs of points of one cell or of two that touch, each once."""
        import numpy

        numbers = numpy.arange(len(self.order))
        own = numpy.repeat(self._starts + self._counts, self._counts)
        yield from _spread_out(numbers, numbers + 1, own - numbers - 1)
        for move in self._moves:
            there, behind, _ = self._between(move)
            counts = self._counts[there]
            first = numpy.repeat(self._starts[there] - numpy.cumsum(counts) + counts, counts) + numpy.arange(counts.sum())
            yield from _spread_out(first, numpy.repeat(self._starts[behind], counts), numpy.repeat(self._counts[behind], counts))


def _spread_out(ones: Any, starts: Any, counts: Any) -> Iterator[tuple[Any, Any]]:
    """Each of the ones with the `counts` numbers from its start on, in pieces."""
    import numpy

    ends = numpy.cumsum(counts)
    place = 0
    while place < len(ones):
        done = int(ends[place - 1]) if place else 0
        after = max(place + 1, int(numpy.searchsorted(ends, done + BLOCK, side="right")))
        chosen = counts[place:after]
        total = int(chosen.sum())
        within = numpy.arange(total) - numpy.repeat(numpy.cumsum(chosen) - chosen, chosen)
        yield numpy.repeat(ones[place:after], chosen), numpy.repeat(starts[place:after], chosen) + within
        place = after
