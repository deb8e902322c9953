"""What the trigger carries: the loss of held-out images with the trigger in their prompts and without, at the same points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from train.data.dataset import Sample, trigger_of
from train.loop.probes import Found, means, probed
from train.loop.step import TrainState
from train.loop.validation import Difference, Probe, difference
from train.settings.data import DataConfig
from train.tokens.wording import Trained

NOTHING = 0.1  # of the gain: a trigger whose interval ends below it carries nothing


def without_trigger(prompt: str, trigger: str | None) -> str:
    """The prompt without the trigger, wherever it is a word of its own, and without the comma that it leaves behind."""
    if trigger is None:
        return prompt
    word = re.escape(" ".join(trigger.split()))
    text = re.sub(rf"(?<!\w){word}(?!\w)", "", prompt, flags=re.IGNORECASE)
    return prompt if text == prompt else re.sub(r"\s+", " ", re.sub(r"(^|,)\s*(?:,\s*)+", r"\1 ", text)).strip(" ,")


def bare_prompts(samples: Sequence[Sample], prompts: Sequence[str], config: DataConfig) -> dict[int, str]:
    """Place of an image -> its prompt without the trigger, of those that are measured and have one."""
    bare = {place: without_trigger(prompts[place], trigger_of(samples[place], config)) for place in probed(len(samples))}
    return {place: text for place, text in bare.items() if text != prompts[place]}


@dataclass(frozen=True)
class TriggerProbe:
    """The images that have a trigger, measured without it."""

    heldout: Probe  # its texts hold the prompts without the trigger behind those of the images
    places: tuple[int, ...]  # of the images

    def measure(self, state: TrainState, *, model: Any, found: Found) -> dict[str, Any]:
        """Mean losses of these images: {"trigger": [...], "no_trigger": [...]}, with their prompts and without the trigger in them."""
        count, places = len(self.heldout.sha256s), list(self.places)
        captions = list(range(count))
        for number, place in enumerate(places):
            captions[place] = count + number
        bare = self.heldout.table(state, model=model, images=places, captions=captions, points=found.points)
        return {"trigger": means(found.heldout[places][:, found.points]), "no_trigger": means(bare)}


@dataclass(frozen=True)
class Binding:
    """How much higher the loss is without the trigger, after training and with the base, and what was gained with it."""

    now: Difference  # without - with
    base: float
    gain: float  # of the base's loss, on the same images with the trigger

    @property
    def share(self) -> float | None:
        """Of the gain, what is lost without the trigger; None where there is no gain."""
        return self.now.mean / self.gain if self.gain > 0 else None

    @property
    def verdict(self) -> str:
        """carries, nothing, or cannot tell."""
        if self.now.low is None or self.now.high is None or self.gain <= 0:
            return "cannot tell"
        if self.now.high < NOTHING * self.gain:
            return "nothing"
        return "carries" if self.now.low > 0 else "cannot tell"

    def sentence(self, triggers: Sequence[str], trained: Trained) -> str:
        """The verdict with its numbers, and what to do."""
        name = f"the trigger {' or '.join(map(repr, triggers))}"
        span = "" if self.now.low is None else f", 95% interval {self.now.low:+.4f} .. {self.now.high:+.4f}"
        numbers = f"without it the held-out loss changes by {self.now.mean:+.4f}{span}"
        if self.share is None:
            return f"{name}: {numbers}; nothing was gained that it could carry"
        if self.verdict == "carries":
            return f"{name} carries {self.share:.0%} of the gain: {numbers}"
        if self.verdict == "cannot tell":
            return f"cannot tell whether {name} carries some of the gain ({self.share:.0%}): {numbers}"
        return f"{name} carries nothing of the gain ({self.share:.0%}): {numbers}. {trained.free_trigger}"


def binding_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> Binding | None:
    """What the trigger carries by a measurement of the base and a later one. None where none was measured."""
    if not before.get("no_trigger") or len(after.get("no_trigger", ())) != len(before["no_trigger"]):
        return None
    now = difference(after["no_trigger"], after["trigger"])
    gain = _mean(before["trigger"]) - _mean(after["trigger"])
    return Binding(now, _mean(before["no_trigger"]) - _mean(before["trigger"]), gain)


def binding_json(found: Binding | None, triggers: Sequence[str]) -> dict[str, Any] | None:
    """`trigger` of the verdict in result.json."""
    if found is None:
        return None
    now = {"mean": found.now.mean, "low": found.now.low, "high": found.now.high}
    return {"words": list(triggers), "verdict": found.verdict, "share": found.share, "difference": now, "base": found.base}


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
