"""A memory budget in a plan: what was found for it, what that costs, and the next cheaper and dearer choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.budget.chosen import Chosen, as_typed, reserved_words
from registry.budget.search import Candidate
from registry.budget.text import Budget, both_units, size_to_give
from registry.errors import Refused


@dataclass(frozen=True, kw_only=True)
class MemoryPlan(Chosen):
    """A budget, and the settings that were found for it."""

    budget: Budget
    reserved: int  # bytes of the peak that are no tensor's
    kept: bool  # the run goes on with the settings that it has
    images_per_step: int

    def settings(self, one: Candidate) -> dict[str, Any]:
        """The values, and how many of the batches make a step."""
        return {**one.values, "accumulate": self.images_per_step // one.values["batch_size"]}

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "budget_bytes": self.budget.bytes,
            "auto": self.budget.is_auto,
            "peak_bytes": self.peak,
            "reserved_bytes": self.reserved,
            "fits": self.found.fits,
            **self.choices(),
        }

    def rows(self) -> list[tuple[str, str]]:
        """The plan's lines."""
        at = f" at the peak, while {self.stage}" if self.stage else ""
        lines = [f"{self.budget}; needed{at}: {both_units(self.peak)}{reserved_words(self.reserved)}"]
        lines += [self._chosen()]
        lines += [f"as given: {' '.join(self.given)}"] if self.given and not self.kept else []
        lines += [f"next {which}: {self.beside(one)}. {_price(one)}" for which, one in self.near()]
        return [("budget" if not number else "", line) for number, line in enumerate(lines)]

    def notes(self) -> list[str]:
        """That a run which goes on no longer fits."""
        if self.found.fits:
            return []
        return [f"the run goes on with its own settings, which need {both_units(self.peak)}: more than memory has, {self.budget}"]

    def _chosen(self) -> str:
        if self.kept:
            return "settings as the run began with"
        words = self.words()
        return f"chosen: {words}. {_price(self.found.chosen)}" if words else "chosen: nothing has to change"


def _price(one: Candidate) -> str:
    """Both costs together."""
    error = f"a weight error of {one.error:.1%}" if one.error else "no weight error"
    return f"Together about {one.time:.2f} times a step's time, and {error} (assumed, not measured)"


class TooLittleMemory(Refused):
    """No settings fit; `plan` is the one of the least memory that would do."""

    def __init__(self, message: str, plan: MemoryPlan) -> None:
        super().__init__(message)
        self.plan = plan


def too_little(given: str, made: MemoryPlan, changes: Mapping[str, Any], main_memory: int | None) -> TooLittleMemory:
    """The refusal, with the least memory that would do, and the settings for it."""
    chosen = " ".join(f"{name}={as_typed(value)}" for name, value in changes.items()) or "the settings as they are"
    fixed = f" What is given stays: {' '.join(made.given)}." if made.given else ""
    at = f", needed while {made.stage}" if made.stage else ""
    previews = ", or no previews (preview.prompts=[])" if made.stage == "previews are drawn" else ""
    main = f" (swapped blocks take at most {both_units(main_memory)} of this machine's main memory)" if main_memory else ""
    return TooLittleMemory(
        f"memory={given}, {made.budget}, does not do for this run. The least that would is {both_units(made.peak)} or {made.peak:,}"
        f" bytes{at}, with {chosen}{main}.{fixed} Give"
        f" memory={size_to_give(made.peak)} or more, or a lower resolution{previews}.",
        made,
    )
