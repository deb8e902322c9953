"""Early stopping: whether a run ends after a measurement, as if its steps had been reached.

A function of the measurements and the settings alone: a resume decides as the run did that was not stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any

from registry.errors import Refused
from train.loop.history import History
from train.loop.validation import difference
from train.settings.heldout import HeldoutConfig

WORSE = 0.01  # of the base's loss: a smaller rise is none


@dataclass(frozen=True)
class Stopped:
    """The step that the run ended after, the steps it was planned for, and why."""

    step: int
    of: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """`stopped_early` of result.json."""
        return asdict(self)

    def sentence(self) -> str:
        """In words."""
        return f"stopped early after step {self.step} of {self.of}: {self.reason}. The learning rate was on its way to step {self.of}"


def early_stop(history: History, config: HeldoutConfig, *, step: int) -> str | None:
    """Why the run ends after this step; None where it goes on, or nothing was measured after it."""
    rows = sorted((row for row in history.heldout if row["step"] <= step), key=lambda row: int(row["step"]))
    if not rows or rows[-1]["step"] != step or step < config.min_steps:
        return None
    if config.stop_when_worse and _is_worse(history, rows[-1]):
        return (
            f"held-out and training images are worse than with the base at step {step}: the learning rate is too high"
            " (heldout.stop_when_worse)"
        )
    if config.patience is None:
        return None
    best, waited = best_so_far([history.base, *(row["losses"] for row in rows)])
    if waited < config.patience:
        return None
    than = f"step {rows[best - 1]['step']}" if best else "the base"
    return f"{waited} held-out measurements in a row were not better than {than} beyond chance (heldout.patience={config.patience})"


def best_so_far(losses: Sequence[Sequence[float]]) -> tuple[int, int]:
    """(place of the last one that was better than the one found so before, how many came after it); the base's is at 0."""
    best = 0
    for place in range(1, len(losses)):
        if difference(losses[place], losses[best]).verdict == "better":
            best = place
    return best, len(losses) - 1 - best


def _is_worse(history: History, row: dict[str, Any]) -> bool:
    """Held-out images are worse than with the base beyond chance and by more than a hundredth, and so are training images."""
    before, after = (fsum(losses) / len(losses) for losses in (history.before["trained"], row["trained"]))
    found = difference(row["losses"], history.base)
    limit = WORSE * fsum(history.base) / len(history.base)
    return found.verdict == "worse" and found.mean > limit and after > before * (1 + WORSE)


def check_early_stop(config: HeldoutConfig, heldout: int) -> None:
    """Raise Refused where nothing could be judged."""
    asked = [name for name in ("patience", "stop_when_worse") if getattr(config, name)]
    if not asked or heldout > 1:
        return
    have = "there are no held-out images" if not heldout else "one held-out image gives no interval"
    raise Refused(
        f"heldout.{asked[0]} stops by held-out images, and {have}. Hold out at least two: heldout.share=0.2, or heldout.path=DIR."
    )


def early_stop_notes(config: HeldoutConfig, steps: int) -> Iterator[str]:
    """What early stopping does to the run."""
    if config.patience is not None or config.stop_when_worse:
        yield f"the run may stop early; its learning rate follows the schedule of all {steps} steps until then"
