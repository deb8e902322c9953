"""What the held-out losses show at the end of a run: the last step and the best one, each against the base and against one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from train.loop.history import History
from train.loop.validation import Difference, difference


@dataclass(frozen=True)
class Verdict:
    """Paired differences over the held-out images; below 0 is better. None: nothing was measured."""

    last: int
    best: int  # the measured step with the lowest mean loss, the earliest of equals
    last_to_base: Difference
    best_to_base: Difference  # the best is the lowest of several: its interval holds for all of them at once
    best_to_last: Difference | None  # None where the best step is the last
    losses: tuple[float, float, float]  # means of base, last, best

    @property
    def overfitted(self) -> bool:
        """Whether an earlier step is better than the last one beyond chance."""
        return self.best_to_last is not None and self.best_to_last.verdict == "better"

    def step_to_use(self, choice: bool | None) -> int:
        """The step that gets the run's name, by checkpoint.load_best_at_end.

        True: the best where it is better than the last beyond chance. None: only where besides the last is not better than the base.
        """
        if choice is False or not self.overfitted:
            return self.last
        return self.best if choice or self.last_to_base.verdict != "better" else self.last

    def sentences(self, name: str, used: int, *, trained: str = "LoRA") -> Iterator[str]:
        """The verdict in words, the most important first; `used` is the step that got the run's name, `trained` what has its steps."""
        base, last, best = self.losses
        if self.best_to_last is not None and self.overfitted:
            yield (
                f"step {self.best} has the lowest held-out loss, {best:.4f}: {self.best_to_last.sentence('the last step')}. "
                "The steps after it over-fitted the training images"
            )
        yield f"held-out loss {base:.4f} (base) -> {last:.4f} ({trained}, step {self.last}): {self.last_to_base.sentence()}"
        if self.best_to_last is not None and not self.overfitted:
            yield f"no measured step is better than the last beyond chance; the lowest is step {self.best} ({best:.4f})"
        if self.best != self.last:
            yield f"step {self.best}: {self.best_to_base.sentence()}"
        if used != self.last:
            yield f"{name} is step {used}, as the last step is not better than it and than the base; {name}@last is step {self.last}"
        elif self.overfitted:
            yield f"{name} is the last step; {name}@best is step {self.best}. Held-out loss is one side: draw both before you choose"


def verdict_of(history: History, last: int) -> Verdict | None:
    """The verdict of a run that ended at step `last`; None without held-out images."""
    losses = {int(row["step"]): row["losses"] for row in history.heldout}
    best = history.best_step
    if best is None or last not in losses or not history.base:
        return None
    several = len(losses)
    return Verdict(
        last=last,
        best=best,
        last_to_base=difference(losses[last], history.base),
        best_to_base=difference(losses[best], history.base, comparisons=several),
        best_to_last=None if best == last else difference(losses[best], losses[last], comparisons=max(1, several - 1)),
        losses=(_mean(history.base), _mean(losses[last]), _mean(losses[best])),
    )


def verdict_json(found: Verdict | None, images: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """`heldout` of result.json: mean losses, the differences with their intervals, and each image's losses."""
    if found is None:
        return None
    base, last, best = found.losses
    differences = {"final_to_base": found.last_to_base, "best_to_base": found.best_to_base, "best_to_final": found.best_to_last}
    rows = {
        name: None if each is None else {"mean": each.mean, "low": each.low, "high": each.high, "comparisons": each.comparisons}
        for name, each in differences.items()
    }
    return {"base": base, "final": last, "best": best, **rows, "images": dict(images or {})}


def losses_of(history: History, last: int, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each held-out image's loss with the base and at step `last`, by name; empty where that step was not measured."""
    final: Sequence[float] = next((row["losses"] for row in history.heldout if row["step"] == last), ())
    return {name: {"base": one, "final": two} for name, one, two in zip(names, history.base, final, strict=False)}


def pooled(results: Sequence[Mapping[str, Any]]) -> Difference | None:
    """The difference to the base over the held-out images of several runs, each image measured by the run that never saw it.

    `results`: result.json of each. None where one has no held-out images.
    """
    rows = [image for result in results for image in ((result.get("heldout") or {}).get("images") or {}).values()]
    if not rows or not all((result.get("heldout") or {}).get("images") for result in results):
        return None
    return difference([row["final"] for row in rows], [row["base"] for row in rows])


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
