"""A base of a plan: what its files say, and its skeleton only where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.remembered.answers import Answers

if TYPE_CHECKING:
    from registry.family import Family
    from registry.parts import Parts
    from registry.record import Record


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """Plain values of a base's Parts, under their names there."""

    prediction: str
    scheduler_class: str
    latent_factor: int
    resolution: int
    warnings: tuple[str, ...]
    classifier_free: bool  # the family's answer for this build

    @classmethod
    def of(cls, family: Family, skeleton: Parts) -> dict[str, Any]:
        """The facts of a skeleton as plain values, for `BaseFacts(**facts)`."""
        return {
            "prediction": skeleton.prediction,
            "scheduler_class": skeleton.scheduler_class,
            "latent_factor": skeleton.latent_factor,
            "resolution": skeleton.resolution,
            "warnings": list(skeleton.warnings),
            "classifier_free": family.classifier_free(skeleton),
        }


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base that was found: its Record and family, and what a plan knows of it.

    `skeleton` is its Parts without weights: reading it imports torch and diffusers, `facts` and `answers` do not where the base is known.
    """

    record: Record
    path: Path
    family: Family
    facts: BaseFacts
    answers: Answers = field(repr=False, compare=False)
    load: Callable[[], Parts] = field(repr=False, compare=False)
    prediction: str | None  # as a person gave it; None: as its files declare
    sha256: str
    config_sha256: str | None

    @property
    def skeleton(self) -> Parts:
        """Parts without weights, to count and to plan with."""
        return self.load()


MOST_SKELETONS = 4  # 3 to 30 MiB each; the cells of a plan come base by base


class Skeletons:
    """The skeletons that were used last: a plan over a thousand bases has few of them in memory."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Parts] = {}

    def get(self, key: Hashable, make: Callable[[], Parts]) -> Parts:
        """The skeleton of a base, made where it is not kept."""
        found = self._kept.pop(key) if key in self._kept else make()
        self._kept[key] = found
        for old in list(self._kept)[:-MOST_SKELETONS]:
            del self._kept[old]
        return found
