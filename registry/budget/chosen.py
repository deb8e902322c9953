"""What a search for memory found, as plans show it: the settings, what they cost, and the next cheaper and dearer choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from registry.budget.search import Candidate, Found
from registry.budget.text import both_units


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The settings that were found, of a run or of the images of one base."""

    found: Found
    given: tuple[str, ...]  # settings that were left alone
    stage: str  # the one that needs most; empty where all is in memory at once

    @property
    def peak(self) -> int:
        """Bytes of the device that the settings need, with what is reserved."""
        return self.found.chosen.peak or 0

    def settings(self, one: Candidate) -> dict[str, Any]:
        """Setting -> value."""
        return one.values

    def weight_error(self, one: Candidate) -> float:
        """Relative weight errors, added."""
        return one.error

    def choices(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        chosen = self.found.chosen
        return {
            "chosen": self.settings(chosen),
            "costs": costs_of(chosen),
            **self._price(chosen),
            "given": list(self.given),
            "alternatives": [
                {"which": which, "settings": self.settings(one), "peak_bytes": one.peak, **self._price(one)} for which, one in self.near()
            ],
        }

    def near(self) -> Iterator[tuple[str, Candidate]]:
        """The next cheaper and the next dearer choice, where there are such."""
        for which, one in (("cheaper", self.found.cheaper), ("dearer", self.found.dearer)):
            if one is not None:
                yield which, one

    def words(self) -> str:
        """What was chosen, each setting with what it costs; empty where nothing has to change."""
        chosen = self.found.chosen
        return "; ".join(f"{name}={as_typed(chosen.values[name])} ({words})" for name, words in costs_of(chosen).items())

    def beside(self, one: Candidate) -> str:
        """What another choice has otherwise, and what it needs."""
        chosen = self.settings(self.found.chosen)
        other = (f"{name}={as_typed(value)}" for name, value in self.settings(one).items() if value != chosen[name])
        return f"{' '.join(other)}, {both_units(one.peak or 0)}"

    def _price(self, one: Candidate) -> dict[str, float]:
        return {"time_factor": round(one.time, 4), "weight_error": round(self.weight_error(one), 6)}


def costs_of(chosen: Candidate) -> dict[str, str]:
    """Setting -> what it costs, of those that cost something."""
    return {name: choice.words for name, choice in chosen.choices.items() if choice.words}


def as_typed(value: object) -> str:
    """A value as the command line takes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def reserved_words(reserved: int) -> str:
    """What of a budget is no tensor's."""
    return f", {both_units(reserved)} of it for CUDA and the allocator" if reserved else ""
