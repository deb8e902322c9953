"""Intervals over prompts and seeds: a bootstrap that draws prompts, and within each its seeds, again and again; the same for one seed."""

# R resamples, P prompts, S seeds

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

CONFIDENCE = 0.95
RESAMPLES = 2000
SMALLEST = 4  # prompts: a bootstrap over fewer takes chance for certainty


@dataclass(frozen=True)
class Interval:
    """A value with the interval that holds it for all of `comparisons` at once; None where there are too few prompts for one."""

    value: float
    low: float | None
    high: float | None

    @property
    def side(self) -> str:
        """below, above, or cannot tell: against 0."""
        if self.low is None or self.high is None or self.low <= 0.0 <= self.high:
            return "cannot tell"
        return "below" if self.high < 0.0 else "above"

    def to_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


class Resamples:
    """The same resamples for every measure of a judgement, so that differences are paired."""

    def __init__(self, prompts: int, seeds: int, *, seed: int = 0) -> None:
        import numpy

        generator = numpy.random.default_rng(seed)
        self._enough = prompts >= SMALLEST
        self.prompts = generator.integers(0, prompts, (RESAMPLES, prompts, 1))  # (R, P, 1)
        self.seeds = generator.integers(0, seeds, (RESAMPLES, prompts, seeds))  # (R, P, S)

    def interval(self, measured: Any, statistic: Callable[[Any], Any] | None = None, *, comparisons: int = 1) -> Interval:
        """The interval of a statistic of (P, S, ...) measures; the mean unless given. `statistic` maps (..., P, S, ...) to (...)."""
        import numpy

        table = numpy.asarray(measured, dtype=numpy.float64)
        of = statistic or (lambda rows: rows.mean((-2, -1)))
        value = float(of(table))
        if not self._enough:
            return Interval(value, None, None)
        tail = (1 - CONFIDENCE) / (2 * comparisons)
        low, high = numpy.quantile(of(table[self.prompts, self.seeds]), [tail, 1 - tail])
        return Interval(value, float(low), float(high))


LEAST = 5  # groups of `clustered`: of four, the widest resamples there are hold 87 % (bench/score)
MORE = 10_000  # resamples of clusters: the tails below are further out than those of Resamples


@cache
def _chosen(clusters: int) -> Any:
    """(R, G) how often each cluster is in each resample."""
    import numpy

    generator = numpy.random.default_rng(0)
    drawn = generator.integers(0, clusters, (MORE, clusters))
    return numpy.stack([(drawn == number).sum(1) for number in range(clusters)], 1)


def clustered(groups: Sequence[Sequence[float]]) -> Interval:
    """The mean of all values, with the 95 % interval of a bootstrap that draws whole groups; no interval for fewer than LEAST.

    The percentiles are widened as Hesterberg (2015, "What Teachers Should Know About the Bootstrap", section 5.3) expands them,
    alpha' / 2 = Phi(-sqrt(G / (G - 1)) t(alpha / 2, G - 1)): plain ones of few groups hold too seldom.
    """
    import numpy
    from scipy.stats import norm, t

    sums = numpy.array([sum(group) for group in groups], dtype=numpy.float64)
    counts = numpy.array([len(group) for group in groups], dtype=numpy.float64)
    mean = float(sums.sum() / counts.sum())
    size = len(groups)
    if size < LEAST:
        return Interval(mean, None, None)
    tail = float(norm.cdf((size / (size - 1)) ** 0.5 * t.ppf((1 - CONFIDENCE) / 2, size - 1)))
    chosen = _chosen(size)
    low, high = numpy.quantile((chosen @ sums) / (chosen @ counts), [tail, 1 - tail])
    return Interval(mean, float(low), float(high))
