"""The cheapest settings that fit a memory budget.

Every setting has values, the first of which costs nothing; every other one a factor of time and a relative error of weights. A candidate
is one value of each. Its cost is one number,

    product of the time factors x (1 + TIME_FOR_ERROR x sum of the errors) - 1,

so that settings which trade time for memory and settings which trade exactness for it can be put in one order. **Cheapest** is the least
cost; of equal ones the first in the order of the settings and of their values. Time factors and errors are the caller's; they are there
for the order, and are no forecast of a run's seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

# What a relative weight error of 1 is worth in time: 1 % of error as much as 40 % more time. So what changes no weight and takes less than
# a fifth more time (smaller batches, most of block swap) comes before int8's half a percent, and nf4's 9 % after all else.
TIME_FOR_ERROR = 40.0

Values = Mapping[str, Any]  # setting -> value


@dataclass(frozen=True)
class Value:
    """A value of a setting, and what it costs beside the setting's first."""

    value: Any
    time: float = 1.0  # factor of a step's time
    error: float = 0.0  # relative error of the weights that it acts on
    words: str = ""  # what it costs, for people; "" for nothing


@dataclass(frozen=True)
class Setting:
    """A setting that can save memory. The first value is the one that it has without a search."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Candidate:
    """One value of each setting, with its cost; `peak` in bytes where it was computed."""

    choices: Mapping[str, Value] = field(default_factory=dict)
    peak: int | None = None

    @property
    def values(self) -> dict[str, Any]:
        return {name: choice.value for name, choice in self.choices.items()}

    @property
    def time(self) -> float:
        """Factor of a step's time."""
        return prod(choice.time for choice in self.choices.values())

    @property
    def error(self) -> float:
        """Relative errors, added."""
        return sum(choice.error for choice in self.choices.values())

    @property
    def cost(self) -> float:
        """0 for the settings as they are."""
        return self.time * (1 + TIME_FOR_ERROR * self.error) - 1


@dataclass(frozen=True)
class Found:
    """What a search found.

    `chosen` is the cheapest that fits or, where `fits` is false, the one with the smallest peak: the least memory that would do.
    `cheaper` is what a little more memory would give: of all that cost less, the one with the smallest peak. `dearer` is what a little less
    memory would give: the cheapest with a smaller peak. Each is None where there is none.
    """

    chosen: Candidate
    fits: bool
    cheaper: Candidate | None = None
    dearer: Candidate | None = None


Bytes = Callable[[Values], int]


def cheapest(
    settings: Sequence[Setting],
    budget: int,
    *,
    peak: Bytes,
    floor: Bytes = lambda _values: 0,
    allowed: Callable[[Values], bool] = lambda _values: True,
) -> Found:
    """The cheapest candidate whose peak is at most `budget` bytes.

    `peak` may be slow: it is asked once a candidate, and only where `floor`, a quick lower bound of it, leaves a doubt; what is found does
    not depend on `floor`. `allowed` says which values go together; the first ones of all must.
    """
    peaks: dict[int, int] = {}
    ranked = _ranked(settings, allowed)

    def peak_of(place: int) -> int:
        if place not in peaks:
            peaks[place] = peak(ranked[place].values)
        return peaks[place]

    def with_peak(place: int | None) -> Candidate | None:
        return None if place is None else Candidate(ranked[place].choices, peak_of(place))

    def first(places: Iterable[int], most: int) -> int | None:
        """The first of the places that takes at most so many bytes."""
        return next((place for place in places if floor(ranked[place].values) <= most and peak_of(place) <= most), None)

    def smallest(places: Sequence[int]) -> int | None:
        """The place with the smallest peak, the cheapest of equal ones. Those that are known rule out others first, then the dearest."""
        best: int | None = None
        for place in sorted(places, key=lambda place: (floor(ranked[place].values), place not in peaks, -place)):
            if best is None or floor(ranked[place].values) < best:
                best = peak_of(place) if best is None else min(best, peak_of(place))
        return None if best is None else first(places, best)

    chosen = first(range(len(ranked)), budget)
    if chosen is None:
        found = with_peak(smallest(range(len(ranked))))
        assert found is not None  # the settings as they are go together
        return Found(found, fits=False)
    dearer = first(range(chosen + 1, len(ranked)), peak_of(chosen) - 1)
    at = with_peak(chosen)
    assert at is not None
    return Found(at, True, with_peak(smallest(range(chosen))), with_peak(dearer))


def _ranked(settings: Sequence[Setting], allowed: Callable[[Values], bool]) -> list[Candidate]:
    """All candidates whose values go together, the cheapest first."""
    names = [setting.name for setting in settings]
    every = (Candidate(dict(zip(names, chosen, strict=True))) for chosen in product(*(setting.values for setting in settings)))
    return sorted((candidate for candidate in every if allowed(candidate.values)), key=lambda candidate: candidate.cost)
