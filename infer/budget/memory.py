"""A memory budget in a grid's plan: what was found for each base, what that costs, and the next cheaper and dearer choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infer.budget.savings import weight_error
from registry.budget.search import Candidate, Found
from registry.budget.text import Budget, both_units


@dataclass(frozen=True)
class BaseMemory:
    """The settings that were found for the images of one base."""

    base: str
    found: Found
    given: tuple[str, ...]  # settings that were left alone
    stage: str  # the one that needs most

    @property
    def peak(self) -> int:
        """Bytes of the device."""
        return self.found.chosen.peak or 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        chosen, near = self.found.chosen, (("cheaper", self.found.cheaper), ("dearer", self.found.dearer))
        return {
            "base": self.base,
            "peak_bytes": self.peak,
            "stage": self.stage,
            "chosen": chosen.values,
            "costs": _costs(chosen),
            **_price(chosen),
            "given": list(self.given),
            "alternatives": [
                {"which": which, "settings": one.values, "peak_bytes": one.peak, **_price(one)} for which, one in near if one is not None
            ],
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        chosen, costs = self.found.chosen, _costs(self.found.chosen)
        each = "; ".join(f"{name}={as_typed(chosen.values[name])} ({words})" for name, words in costs.items())
        yield f"    {self.base}: {both_units(self.peak)} at the peak, while {self.stage}; chosen: {each or 'nothing has to change'}"
        for which, one in (("cheaper", self.found.cheaper), ("dearer", self.found.dearer)):
            if one is not None:
                other = (f"{name}={as_typed(value)}" for name, value in one.values.items() if value != chosen.values[name])
                yield f"      next {which}: {' '.join(other)}, {both_units(one.peak or 0)}"


@dataclass(frozen=True)
class GridMemory:
    """A budget, and what was found for each base."""

    budget: Budget
    reserved: int  # bytes of each peak that are no tensor's
    bases: tuple[BaseMemory, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "budget_bytes": self.budget.bytes,
            "auto": self.budget.is_auto,
            "peak_bytes": max(one.peak for one in self.bases),
            "reserved_bytes": self.reserved,
            "bases": [one.to_json() for one in self.bases],
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        kept = f", {both_units(self.reserved)} of it for CUDA and the allocator" if self.reserved else ""
        yield f"  memory {self.budget}{kept}"
        for one in self.bases:
            yield from one.lines()


def _costs(chosen: Candidate) -> dict[str, str]:
    """Setting -> what it costs, of those that cost something."""
    return {name: choice.words for name, choice in chosen.choices.items() if choice.words}


def _price(one: Candidate) -> dict[str, float]:
    return {"time_factor": round(one.time, 4), "weight_error": round(weight_error(one.values), 6)}


def as_typed(value: object) -> str:
    """A value as the command line takes it."""
    return "null" if value is None else str(value)
