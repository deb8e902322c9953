"""Differential output preservation: the adapter is held to what the base itself predicts for the class prompt, at the same noisy latents.

    loss = w mean((adapted(noisy, t, class prompt) - base(noisy, t, class prompt))^2)

The class prompt is an image's prompt with the class in place of the trigger: `a photo of sks` becomes `a photo of a woman`. So the trigger
learns, and the class stays what it was (ai-toolkit's diff_output_preservation).
"""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import Refused
from train.config import TrainConfig
from train.data.captions import has_trigger, prompt_of
from train.data.dataset import Sample
from train.loop.encode import Prompts, Texts
from train.lora import adapter_disabled
from train.objective.losses import mse
from train.objective.masked import mean_by_image

if TYPE_CHECKING:
    from torch import Tensor

    from train.loop.step import Pass, TrainState


def class_prompt(prompt: str, trigger: str, name: str) -> str:
    """The prompt with the class in place of the trigger, wherever it is a word of its own, in any case of letters."""
    words = " ".join(trigger.split())
    return re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", lambda _found: name, prompt, flags=re.IGNORECASE)


def trigger_of(sample: Sample, trigger: str | None) -> str | None:
    """The trigger that the image's prompts have: its subset's own, else data.trigger; a regularisation image has none."""
    return None if sample.prior else sample.trigger or trigger


def check_preserve(config: TrainConfig, samples: Iterable[Sample]) -> None:
    """Raise Refused where objective.preserve_class cannot take the place of a trigger."""
    name = config.objective.preserve_class
    if name is None:
        return
    triggers = {found for sample in samples if not sample.prior and (found := trigger_of(sample, config.data.trigger))}
    without = [sample.name for sample in samples if not sample.prior and trigger_of(sample, config.data.trigger) is None]
    if without:
        raise Refused(
            f"objective.preserve_class={name!r} takes the place of the trigger, and data.trigger is not set: the class prompt would be the"
            " prompt itself, and nothing could be learned. Set data.trigger to the word that is trained."
        )
    held = sorted(word for word in triggers if has_trigger(name, word))
    if held:
        raise Refused(
            f"objective.preserve_class={name!r} contains the trigger {held[0]!r}, which would be held to the base too. Give the class."
        )


def class_prompts(config: TrainConfig, samples: Sequence[Sample]) -> list[str]:
    """The class prompt of each image; the caption alone for one without a trigger, where it is not used."""
    name, found = str(config.objective.preserve_class), []
    for sample in samples:
        trigger = trigger_of(sample, config.data.trigger)
        prompt = prompt_of(sample.caption, trigger)
        found.append(prompt if trigger is None else class_prompt(prompt, trigger, name))
    return found


@dataclass(frozen=True)
class Preserve:
    """The loss as one that is added to each image's own (an Extra of the step): over the whole image, whatever its mask."""

    texts: Texts | Prompts  # the class prompts of the images
    weight: float

    def __call__(self, state: TrainState, made: Pass, prediction: Tensor) -> Tensor:
        """(B,) on the device; 0 for a regularisation image, which is of the class itself."""
        import torch

        items = [state.items[item] for item in made.batch.items]
        text = self.texts.rows([item.image for item in items])
        with torch.no_grad(), adapter_disabled(state.modules):
            base = state.predict(state.model, made.noisy, made.timesteps, text, made.crops)
        adapted = state.predict(state.model, made.noisy, made.timesteps, text, made.crops)
        weights = prediction.new_tensor([0.0 if item.sample.prior else self.weight for item in items], dtype=torch.float32)
        return mean_by_image(mse(adapted, base)) * weights
