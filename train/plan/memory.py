"""A memory budget in a plan: what was found for it, what that costs, and the next cheaper and dearer choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.budget.search import Candidate, Found
from registry.budget.text import Budget, both_units, size_to_give
from registry.errors import Refused


@dataclass(frozen=True)
class MemoryPlan:
    """A budget, and the settings that were found for it."""

    budget: Budget
    reserved: int  # bytes of the peak that are no tensor's
    found: Found
    given: tuple[str, ...]  # settings that were left alone
    stage: str  # the one that needs most; empty where all is in memory at once
    kept: bool
    images_per_step: int

    @property
    def peak(self) -> int:
        """Bytes that the run needs of the device, with what is reserved."""
        return self.found.chosen.peak or 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        chosen = self.found.chosen
        near = (("cheaper", self.found.cheaper), ("dearer", self.found.dearer))
        return {
            "budget_bytes": self.budget.bytes,
            "auto": self.budget.is_auto,
            "peak_bytes": self.peak,
            "reserved_bytes": self.reserved,
            "fits": self.found.fits,
            "chosen": self._settings(chosen),
            "costs": _costs(chosen),
            "time_factor": round(chosen.time, 4),
            "weight_error": round(chosen.error, 6),
            "given": list(self.given),
            "alternatives": [
                {
                    "which": which,
                    "settings": self._settings(one),
                    "peak_bytes": one.peak,
                    "time_factor": round(one.time, 4),
                    "weight_error": round(one.error, 6),
                }
                for which, one in near
                if one is not None
            ],
        }

    def rows(self) -> list[tuple[str, str]]:
        """The plan's lines."""
        kept = f", {both_units(self.reserved)} of it for CUDA and the allocator" if self.reserved else ""
        at = f" at the peak, while {self.stage}" if self.stage else ""
        lines = [f"{self.budget}; needed{at}: {both_units(self.peak)}{kept}"]
        lines += [self._chosen()]
        lines += [f"as given: {' '.join(self.given)}"] if self.given and not self.kept else []
        lines += [f"next {which}: {self._beside(one)}" for which, one in self._near() if one is not None]
        return [("budget" if not number else "", line) for number, line in enumerate(lines)]

    def notes(self) -> list[str]:
        """That a run which goes on no longer fits."""
        if self.found.fits:
            return []
        return [f"the run goes on with its own settings, which need {both_units(self.peak)}: more than memory has, {self.budget}"]

    def _settings(self, one: Candidate) -> dict[str, Any]:
        """The values, and how many of the batches make a step."""
        return {**one.values, "accumulate": self.images_per_step // one.values["batch_size"]}

    def _near(self) -> list[tuple[str, Candidate | None]]:
        return [("cheaper", self.found.cheaper), ("dearer", self.found.dearer)]

    def _chosen(self) -> str:
        if self.kept:
            return "settings as the run began with"
        costs = _costs(self.found.chosen)
        if not costs:
            return "chosen: nothing has to change"
        each = "; ".join(f"{name}={as_typed(self.found.chosen.values[name])} ({words})" for name, words in costs.items())
        return f"chosen: {each}. {_price(self.found.chosen)}"

    def _beside(self, one: Candidate) -> str:
        chosen = self._settings(self.found.chosen)
        other = {name: value for name, value in self._settings(one).items() if value != chosen[name]}
        return f"{' '.join(f'{name}={as_typed(value)}' for name, value in other.items())}, {both_units(one.peak or 0)}. {_price(one)}"


def _costs(chosen: Candidate) -> dict[str, str]:
    """Setting -> what it costs, of those that cost something."""
    return {name: choice.words for name, choice in chosen.choices.items() if choice.words}


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


def as_typed(value: object) -> str:
    """A value as the command line takes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
