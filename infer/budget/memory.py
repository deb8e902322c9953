"""A memory budget in a grid's plan: what was found for each base, what that costs, and the next cheaper and dearer choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infer.budget.savings import weight_error
from registry.budget.chosen import Chosen, reserved_words
from registry.budget.search import Candidate
from registry.budget.text import Budget, both_units


@dataclass(frozen=True, kw_only=True)
class BaseMemory(Chosen):
    """The settings that were found for the images of one base."""

    base: str

    def weight_error(self, one: Candidate) -> float:
        """Without what puts the settings in an order alone."""
        return weight_error(one.values)

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {"base": self.base, "peak_bytes": self.peak, "stage": self.stage, **self.choices()}

    def lines(self) -> Iterator[str]:
        """For a person."""
        chosen = self.words() or "nothing has to change"
        yield f"    {self.base}: {both_units(self.peak)} at the peak, while {self.stage}; chosen: {chosen}"
        for which, one in self.near():
            yield f"      next {which}: {self.beside(one)}"


@dataclass(frozen=True)
class GridMemory:
    """A budget, and what was found for each base."""

    budget: Budget
    reserved: int  # bytes of each peak that are no tensor's
    bases: tuple[BaseMemory, ...]

    @property
    def peak(self) -> int:
        """Bytes of the base that needs most: one is loaded after the other."""
        return max(one.peak for one in self.bases)

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "budget_bytes": self.budget.bytes,
            "auto": self.budget.is_auto,
            "peak_bytes": self.peak,
            "reserved_bytes": self.reserved,
            "bases": [one.to_json() for one in self.bases],
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield f"  memory {self.budget}{reserved_words(self.reserved)}"
        for one in self.bases:
            yield from one.lines()
