"""Seconds of a run by what they were spent on: the rate of its steps, and the time left with the pauses between them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Spent:
    """Seconds of one kind of work, and how often it was done."""

    seconds: float = 0.0
    times: int = 0

    @property
    def mean(self) -> float:
        """Seconds of one time; 0 before the first."""
        return self.seconds / self.times if self.times else 0.0


@dataclass
class Pace:
    """Time of one process in the training loop. A pause (held-out loss, previews, a checkpoint) is no time of the steps."""

    began: float = field(default_factory=time.perf_counter)
    pauses: dict[str, Spent] = field(default_factory=dict)
    steps: int = 0
    before: float = 0.0  # seconds of the pauses before the first step

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """Count the block's time as a pause of this kind."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = self.pauses.setdefault(kind, Spent())
            spent.seconds += time.perf_counter() - begin
            spent.times += 1

    def begin_steps(self) -> None:
        """The first step starts now; pauses before it count for what such a pause takes, not for this loop's time."""
        self.began = time.perf_counter()
        self.before = sum(spent.seconds for spent in self.pauses.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the first step began, pauses included."""
        return time.perf_counter() - self.began

    @property
    def rate(self) -> float:
        """Mean steps a second over all steps of this process, without the pauses; 0 before the first."""
        paused = sum(spent.seconds for spent in self.pauses.values()) - self.before
        return self.steps / max(self.elapsed - paused, 1e-9) if self.steps else 0.0

    def seconds_left(self, steps: int, pauses: Mapping[str, int]) -> float | None:
        """Seconds of so many further steps and pauses by kind; None before the first step. A kind that never happened counts 0."""
        if not self.rate:
            return None
        return steps / self.rate + sum(count * self.pauses[kind].mean for kind, count in pauses.items() if kind in self.pauses)


def times_due(step: int, steps: int, intervals: Sequence[int]) -> int:
    """How many of the steps after `step` are the last one or a multiple of one of the intervals, by inclusion and exclusion."""
    count = 0
    for chosen in range(1, 2 ** len(intervals)):
        every = math.lcm(*(interval for place, interval in enumerate(intervals) if chosen >> place & 1))
        count += (steps // every - step // every) * (1 if chosen.bit_count() % 2 else -1)
    return count + (1 if steps > step and all(steps % interval for interval in intervals) else 0)
