"""Settings of what the adapter learns: timesteps, weights and loss."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from registry.settings import params_schema, setting, word
from train.objective import preference as _preference  # noqa: F401 - adds dpo to OBJECTIVES
from train.objective.contrast import CONTRASTS
from train.objective.losses import LOSSES
from train.objective.noise import NOISES
from train.objective.slider import OBJECTIVES
from train.objective.timesteps import TIMESTEPS
from train.objective.weighting import WEIGHTINGS
from train.settings.rules import Rule, texts

if TYPE_CHECKING:  # built from the tables; no type checker can see its fields
    ObjectiveParams: TypeAlias = Any
else:
    ObjectiveParams = params_schema("ObjectiveParams", [OBJECTIVES, CONTRASTS, TIMESTEPS, WEIGHTINGS, LOSSES, NOISES], module=__name__)


@dataclass(kw_only=True)
class ObjectiveConfig:
    name: str = word(
        "denoise",
        f"what is learned: {', '.join(OBJECTIVES)}; slider: an adapter whose weight moves an attribute; dpo: what was voted for"
        " (data.preferences)",
        among=OBJECTIVES,
    )
    timesteps: str | None = word(
        None, f"distribution of the training timesteps: {', '.join(TIMESTEPS)} (default: the family's)", among=TIMESTEPS
    )
    weighting: str = word("none", f"loss weights by timestep: {', '.join(WEIGHTINGS)}", among=WEIGHTINGS)
    loss: str = word("mse", f"loss: {', '.join(LOSSES)}", among=LOSSES)
    noise: str = word("normal", f"noise, several joined by +: {', '.join(NOISES)}", among=NOISES)
    min_timestep: float | None = setting(None, "timesteps below it are not trained on, of usually 1000 (default: 0)")
    max_timestep: float | None = setting(None, "timesteps from it on are not trained on (default: all are)")
    zero_terminal_snr: bool = setting(
        False, "rescale the betas of a base that predicts v, so that its last timestep is pure noise; its images must be drawn so too"
    )
    contrast: str = word("none", f"what keeps guidance, of guidance-distilled bases above all: {', '.join(CONTRASTS)}", among=CONTRASTS)
    shift: float | None = setting(
        None, "time shift of a flow model's timesteps, above 1 towards noise; 1 is none (default: that of sampling at each image's size)"
    )
    guidance: float | None = setting(None, "embedded guidance while training, for families that have it (default: the family's)")
    preserve_class: str | None = setting(
        None,
        "class prompt, such as a woman, that takes the place of the trigger in a second pass, which is held to the base's own prediction"
        " (differential output preservation); null: none",
    )
    preserve_weight: float = setting(1.0, "weight of that pass in the loss")
    params: ObjectiveParams = setting(ObjectiveParams, "options of timesteps, weighting, loss and noise")

    def rules(self) -> Iterator[Rule]:
        """Ranges; the tables have those of the options."""
        shift, guidance, low, high = self.shift, self.guidance, self.min_timestep, self.max_timestep
        good = low is None or (isfinite(low) and low >= 0)
        yield "min_timestep", low, good, "must be 0 or more, or null for all"
        good = high is None or (isfinite(high) and high > (low or 0))
        yield "max_timestep", high, good, "must be above objective.min_timestep and above 0, or null for all"
        yield "shift", shift, shift is None or (isfinite(shift) and shift > 0), "must be above 0, or null for the base's own"
        yield from texts(self, "preserve_class")
        weight = self.preserve_weight
        yield "preserve_weight", weight, isfinite(weight) and weight > 0, "must be above 0"
        good = guidance is None or (isfinite(guidance) and guidance >= 0)
        yield "guidance", guidance, good, "must be 0 or more, or null for the family's"
