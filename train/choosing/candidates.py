"""What is voted on: some of a run's checkpoints, each at a few weights, beside the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from infer.draw.values import number
from registry.errors import Refused
from registry.printable import some
from train.run_report.read import RunFiles

FEW = 3  # checkpoints that are drawn unless others are given: each one more makes many pairs more
WEIGHTS = (0.7, 1.0)
MOST_WEIGHTS, HEAVIEST = 6, 4.0
MOST = 99  # candidates: with the base as many as are ranked
BASE = "base"


@dataclass(frozen=True, order=True)
class Candidate:
    """A checkpoint at a weight."""

    step: int
    weight: float

    @property
    def label(self) -> str:
        return f"step {self.step}, weight {number(self.weight)}"


def read_weights(given: str | None) -> tuple[float, ...]:
    """The weights of `0.6,0.8,1`. Raises Refused."""
    if given is None:
        return WEIGHTS
    try:
        found = tuple(float(part) for part in given.split(","))
    except ValueError:
        found = ()
    good = 0 < len(found) <= MOST_WEIGHTS and len(set(found)) == len(found) and all(math.isfinite(one) for one in found)
    if not good or not all(0 < one <= HEAVIEST for one in found):
        raise Refused(
            f"--weights {given}: expected 1 to {MOST_WEIGHTS} different numbers above 0, up to {number(HEAVIEST)}: 0.6,0.8,1. "
            "The base, which is a weight of 0, is drawn beside them anyhow."
        )
    return tuple(sorted(found))


def read_steps(run: RunFiles, given: str | None) -> tuple[int, ...]:
    """The steps of `40,80`, `best,last` or `all`; else a few over the run, the best and the last among them. Raises Refused."""
    kept = list(run.checkpoints)
    if given is None:
        return spaced(kept, _best(run), FEW)
    if given.strip().lower() == "all":
        return tuple(kept)
    found: set[int] = set()
    for word in (part.strip().lower() for part in given.split(",")):
        step = {"best": _best(run), "last": kept[-1]}.get(word, int(word) if word.isdecimal() and len(word) < 10 else None)
        if step is None or step not in run.checkpoints:
            why = "the run measured no held-out images, or its best checkpoint is not kept" if word == "best" else "it is not kept"
            steps = some(map(str, kept), 12)
            raise Refused(f"--checkpoints {given}: there is no {word or 'empty name'}: {why}. Kept are {steps}; also best, last, all.")
        found.add(step)
    return tuple(sorted(found))


def _best(run: RunFiles) -> int | None:
    """The step of the lowest held-out loss, where its checkpoint is kept."""
    best = None if run.history is None else run.history.best_step
    return best if best in run.checkpoints else None


def spaced(kept: Sequence[int], best: int | None, count: int) -> tuple[int, ...]:
    """So many of the steps: the best, the last, then each time the one that is farthest from those, and from step 0."""
    chosen = {kept[-1], *([best] if best is not None else [])}
    while len(chosen) < min(count, len(kept)):
        left = [step for step in kept if step not in chosen]
        chosen.add(max(left, key=lambda step: min(abs(step - other) for other in (0, *chosen))))
    return tuple(sorted(chosen))
