"""Held-out losses and time of a run so far: measured by the loop, saved in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from registry.errors import JobFailed
from registry.typed_values import is_of
from train.loop.checkpoint import Checkpoint
from train.loop.validation import Difference, difference


@dataclass
class History:
    """Held-out losses and time so far; saved in every checkpoint."""

    base: list[float] = field(default_factory=list)  # held-out loss of the base, an image each
    heldout: list[dict[str, Any]] = field(default_factory=list)  # {"step", "losses"}
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base, "heldout": self.heldout, "seconds": self.seconds}

    @property
    def best_step(self) -> int | None:
        """The step with the lowest mean held-out loss, the earliest of equals."""
        means = [(math.fsum(row["losses"]) / len(row["losses"]), row["step"]) for row in self.heldout]
        return min(means)[1] if means else None

    def mean(self, step: int | None) -> float | None:
        """Mean held-out loss at a step."""
        return next((math.fsum(row["losses"]) / len(row["losses"]) for row in self.heldout if row["step"] == step), None)

    @property
    def base_mean(self) -> float | None:
        return math.fsum(self.base) / len(self.base) if self.base else None

    def difference(self, step: int | None) -> Difference | None:
        """The paired difference to the base at a step."""
        losses = next((row["losses"] for row in self.heldout if row["step"] == step), None)
        return difference(losses, self.base) if losses and self.base else None


def history_of(found: Checkpoint) -> History:
    """The held-out losses and the time so far. Raises JobFailed for what is none."""
    try:
        history = History(**found.history)
    except TypeError as error:
        raise JobFailed(f"The checkpoint {found.folder} has an unreadable history ({error}). Remove it, and resume.") from error
    rows = history.heldout if isinstance(history.heldout, list) else [None]
    sound = all(
        isinstance(row, dict) and is_of(row.get("losses"), list[float]) and row["losses"] and is_of(row.get("step"), int) for row in rows
    )
    if not (sound and is_of(history.base, list[float]) and is_of(history.seconds, float)):
        raise JobFailed(f"The checkpoint {found.folder} has an unreadable history. Remove it, and resume.")
    return history
