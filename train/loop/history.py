"""Held-out losses and time of a run so far: measured by the loop, saved in every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    before: dict[str, Any] = field(default_factory=dict)  # all that was measured of the base, as in a row; empty in runs of before
    heldout: list[dict[str, Any]] = field(default_factory=list)  # {"step", "losses", "bands", "trained", "others", "own", ...}
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base, "before": self.before, "heldout": self.heldout, "seconds": self.seconds}

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


def parts_of(measured: Mapping[str, Any]) -> dict[str, float]:
    """The rows of metrics.jsonl beside the held-out loss: its bands, the training images' loss, the prompt's share."""
    found = {f"heldout_{band}": loss for band, loss in zip(("low", "middle", "high"), measured["bands"], strict=True)}
    found["heldout_trained"] = math.fsum(measured["trained"]) / len(measured["trained"])
    if measured.get("no_trigger"):
        found["trigger_share"] = _mean_difference(measured["no_trigger"], measured["trigger"])
    if measured.get("generic"):
        found["heldout_generic"] = math.fsum(measured["generic"]) / len(measured["generic"])
    if measured.get("margins"):
        count = len(measured["margins"])
        found |= {"preference_accuracy": accuracy(measured["margins"]), "preference_margin": math.fsum(measured["margins"]) / count}
        found["heldout_preferred"] = math.fsum(measured["preferred"]) / count
    if "delta" in measured:
        found |= {"delta_norm": measured["delta"], "delta_norm_largest": max(measured["delta_layers"].values(), default=0.0)}
    return found | ({"prompt_share": prompt_share(measured)} if measured["others"] else {})


def prompt_share(measured: Mapping[str, Any]) -> float:
    """The loss with another image's caption minus that with its own, the mean over images: 0 where captions are not used."""
    return _mean_difference(measured["others"], measured["own"])


def accuracy(margins: Sequence[float]) -> float:
    """Share of pairs whose preferred image the adapter prefers too; a margin of 0 is half of one."""
    return math.fsum(0.5 if margin == 0 else float(margin > 0) for margin in margins) / len(margins)


def _mean_difference(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a - b for a, b in zip(one, other, strict=True)) / len(one)


LISTS = ("losses", "bands", "trained", "others", "own", "trigger", "no_trigger", "images", "image_others", "generic")
PAIRS = ("margins", "preferred")  # of pairs that were voted on
SUSPECTS = ("suspects", "suspect_shares")  # of training images that were measured again
TYPES: Mapping[str, Any] = {
    **dict.fromkeys((*LISTS, *PAIRS, *SUSPECTS), list[float]),
    "delta": float,
    "delta_layers": dict[str, float],
}  # of a measurement


def _is_measured(row: object) -> bool:
    """Whether this is what a measurement gives."""
    if not isinstance(row, dict) or not is_of(row.get("losses"), list[float]) or not row["losses"]:
        return False
    return all(is_of(row[name], kind) for name, kind in TYPES.items() if name in row)


def history_of(found: Checkpoint) -> History:
    """The held-out losses and the time so far. Raises JobFailed for what is none."""
    try:
        history = History(**found.history)
    except TypeError as error:
        raise JobFailed(f"The checkpoint {found.folder} has an unreadable history ({error}). Remove it, and resume.") from error
    rows = history.heldout if isinstance(history.heldout, list) else [None]
    sound = all(_is_measured(row) and is_of(row.get("step"), int) for row in rows) and (not history.before or _is_measured(history.before))
    if not (sound and is_of(history.base, list[float]) and is_of(history.seconds, float)):
        raise JobFailed(f"The checkpoint {found.folder} has an unreadable history. Remove it, and resume.")
    return history
