"""What conditions an image at each denoiser call: one conditioning as a rule, several where AND joins prompts or a prompt changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infer.prompt.schedule import Timed, text_at
from registry.parts import Conditioning


@dataclass(frozen=True)
class Timeline:
    """One prompt: the conditioning of each of its texts, and its weight beside others."""

    weight: float
    texts: Sequence[Timed]
    conditionings: Sequence[Conditioning]  # of the texts, each of batch 1


@dataclass(frozen=True)
class PromptSchedule:
    """The prompts of an image."""

    timelines: Sequence[Timeline]

    @classmethod
    def constant(cls, conditioning: Conditioning) -> PromptSchedule:
        """One conditioning at every call."""
        return cls([Timeline(1.0, [Timed(0, "")], [conditioning])])

    def at(self, call: int) -> list[tuple[Conditioning, float]]:
        """The conditionings of a denoiser call, counted from 0, each with its weight."""
        return [(one.conditionings[text_at(one.texts, call)], one.weight) for one in self.timelines]

    def each(self, change: Callable[[Conditioning], Conditioning]) -> PromptSchedule:
        """The same schedule with every conditioning changed, equal ones once."""
        known: dict[int, Conditioning] = {}

        def changed(conditioning: Conditioning) -> Conditioning:
            if id(conditioning) not in known:
                known[id(conditioning)] = change(conditioning)
            return known[id(conditioning)]

        return PromptSchedule([Timeline(one.weight, one.texts, [changed(each) for each in one.conditionings]) for one in self.timelines])

    @property
    def is_one(self) -> bool:
        """Whether one conditioning of weight 1 is used at every call."""
        return len(self.timelines) == 1 and self.timelines[0].weight == 1.0
