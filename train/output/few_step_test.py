"""The few-step test: whether an adapter for a few-step base kept its speed.

Each preview prompt is drawn with the base's few steps and with many, with the adapter and without, at the same seed. A base that needs few
steps draws about the same image with both; how much further apart the adapter's two are is what it lost. Paired over the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.detect.few_step import steps_of_test
from train.loop.prepare import Work
from train.loop.validation import Difference, difference
from train.lora import adapter_disabled

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN = 0.25  # of the base's own distance: a rise below it is no loss of speed that an eye would see


@dataclass(frozen=True)
class FewStepTest:
    """Distances between a prompt's few-step and many-step image, in 0..1 of the pixels' range: the adapter's and the base's, by prompt."""

    few: int
    many: int
    adapter: tuple[float, ...]
    base: tuple[float, ...]

    @property
    def rise(self) -> Difference:
        """The adapter's distance over the base's."""
        return difference(self.adapter, self.base)

    @property
    def verdict(self) -> str:
        """kept, lost, or cannot tell."""
        rise, margin = self.rise, MARGIN * _mean(self.base)
        if rise.low is None or rise.high is None or rise.low <= margin <= rise.high:
            return "cannot tell"
        return "kept" if rise.high < margin else "lost"

    def sentence(self) -> str:
        """The verdict with its numbers."""
        rise = self.rise
        words = {
            "kept": f"the adapter kept the base's {self.few} steps",
            "lost": f"the adapter lost the base's {self.few} steps: draw it with more, or train it with a training adapter",
            "cannot tell": f"cannot tell whether the adapter kept the base's {self.few} steps",
        }[self.verdict]
        interval = "" if rise.low is None else f", 95% interval {rise.low:+.4f} .. {rise.high:+.4f} over {len(self.base)} prompts"
        return (
            f"few-step test: {words} (images of {self.few} steps differ from those of {self.many} by {_mean(self.adapter):.4f} with the"
            f" adapter and by {_mean(self.base):.4f} without: {rise.mean:+.4f}{interval})"
        )

    def to_json(self) -> dict[str, Any]:
        """`few_step` of result.json."""
        rise = self.rise
        return {
            "steps": self.few,
            "many_steps": self.many,
            "adapter": _mean(self.adapter),
            "base": _mean(self.base),
            "difference": {"mean": rise.mean, "low": rise.low, "high": rise.high},
            "verdict": self.verdict,
        }


def run_few_step_test(work: Work) -> FewStepTest | None:
    """The test on the preview prompts with the weights as they are.

    None where the base is no few-step build, nothing is drawn, or no adapter is trained.
    """
    found, previews, state = work.plan.few_step, work.previews, work.state
    if found is None or previews is None or not work.plan.layers:
        return None
    few, many = steps_of_test(found.kind.steps)

    def distances() -> tuple[float, ...]:
        pairs = zip(*(previews.images(state, steps=steps) for steps in (few, many)), strict=True)
        return tuple(distance(one, other) for one, other in pairs)

    adapter = distances()
    with adapter_disabled(state.modules):
        base = distances()
    return FewStepTest(few, many, adapter, base)


def distance(one: Image, other: Image) -> float:
    """Root mean square difference of two images of one size, in 0..1 of the pixels' range."""
    from PIL import ImageChops, ImageStat

    squares = ImageStat.Stat(ImageChops.difference(one, other)).rms
    return math.sqrt(_mean([value**2 for value in squares])) / 255


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def sentences(found: FewStepTest | None) -> Iterator[str]:
    """The test in words, where there was one."""
    if found is not None:
        yield found.sentence()
