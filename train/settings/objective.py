"""Settings of what the adapter learns: timesteps, weights and loss."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from registry.settings import params_schema, setting, word
from train.objective.contrast import CONTRASTS
from train.objective.losses import LOSSES
from train.objective.slider import OBJECTIVES
from train.objective.timesteps import TIMESTEPS
from train.objective.weighting import WEIGHTINGS
from train.settings.rules import Rule, texts

if TYPE_CHECKING:  # built from the tables; no type checker can see its fields
    ObjectiveParams: TypeAlias = Any
else:
    ObjectiveParams = params_schema("ObjectiveParams", [OBJECTIVES, CONTRASTS, TIMESTEPS, WEIGHTINGS, LOSSES], module=__name__)


@dataclass(kw_only=True)
class ObjectiveConfig:
    name: str = word("denoise", f"what is learned: {', '.join(OBJECTIVES)}; a slider is an adapter whose weight moves an attribute")
    timesteps: str | None = word(None, f"distribution of the training timesteps: {', '.join(TIMESTEPS)} (default: the family's)")
    weighting: str = word("none", f"loss weights by timestep: {', '.join(WEIGHTINGS)}")
    loss: str = word("mse", f"loss: {', '.join(LOSSES)}")
    contrast: str = word("none", f"what keeps guidance, of guidance-distilled bases above all: {', '.join(CONTRASTS)}")
    shift: float | None = setting(
        None, "time shift of a flow model's timesteps, above 1 towards noise; 1 is none (default: that of sampling at this resolution)"
    )
    guidance: float | None = setting(None, "embedded guidance while training, for families that have it (default: the family's)")
    preserve_class: str | None = setting(
        None,
        "class prompt, such as a woman, that takes the place of the trigger in a second pass, which is held to the base's own prediction"
        " (differential output preservation); null: none",
    )
    preserve_weight: float = setting(1.0, "weight of that pass in the loss")
    params: ObjectiveParams = setting(ObjectiveParams, "options of timesteps, weighting and loss")

    def rules(self) -> Iterator[Rule]:
        """Ranges; the tables have those of the options."""
        shift, guidance = self.shift, self.guidance
        yield "shift", shift, shift is None or (isfinite(shift) and shift > 0), "must be above 0, or null for the base's own"
        yield from texts(self, "preserve_class")
        weight = self.preserve_weight
        yield "preserve_weight", weight, isfinite(weight) and weight > 0, "must be above 0"
        good = guidance is None or (isfinite(guidance) and guidance >= 0)
        yield "guidance", guidance, good, "must be 0 or more, or null for the family's"
