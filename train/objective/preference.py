"""Direct preference optimization: of two images of a prompt the preferred one gets more likely than with the reference, against the other.

    margin = beta / 2 ((ref_w - own_w) - (ref_l - own_l)),    loss = -log sigmoid(margin)

own and ref are the squared errors of the model's and the reference's prediction, as means over the latent's elements; w is the preferred
image and l the other, at one noise and one timestep (Wallace et al. 2023, "Diffusion Model Alignment Using Direct Preference
Optimization", eq. 14, with T w(lambda) constant; on velocities Flow-DPO, Liu et al. 2025, "Improving Video Generation with Human Feedback",
with a constant beta).
"""

# B pairs of one pass

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from registry.options import Meaning
from train.objective.slider import OBJECTIVES

if TYPE_CHECKING:
    from torch import Tensor

Beta = Annotated[
    float,
    Meaning(
        "how strictly the adapter is held to the reference (beta): half of it is the factor on mean squared errors, as in the paper's code,"
        " where SD 1.5 has 2000 and SDXL 5000; less learns more and drifts more",
        0.0,
        1e7,
        open_least=True,
    ),
]
Supervised = Annotated[float, Meaning("weight of the preferred image's own loss beside it, which keeps its likelihood up (SFT)", 0.0, 1e4)]
Against = Annotated[
    Literal["start", "base"],
    Meaning("the reference: start is the model as the run begins, with the adapter of lora.start; base is without any adapter"),
]


@dataclass(frozen=True)
class Preference:
    """The options of learning from votes."""

    beta: float
    supervised: float
    reference: str  # start or base


@OBJECTIVES.add("dpo")
def dpo(*, dpo_beta: Beta = 2000.0, sft: Supervised = 0.0, reference: Against = "start") -> Preference:
    """Pairs of data.preferences: what people voted for becomes more likely (Wallace et al. 2023; Liu et al. 2025)."""
    return Preference(dpo_beta, sft, reference)


def margins(own: Tensor, reference: Tensor, *, beta: float) -> Tensor:
    """How far the implicit reward of preferred images is above that of the others (B,), by errors (2B,), the preferred ones first."""
    preferred, rejected = (reference - own).chunk(2)
    return beta / 2 * (preferred - rejected)


def preference_losses(found: Tensor) -> Tensor:
    """-log sigmoid of each margin: log 2 where the model is the reference."""
    from torch.nn.functional import softplus

    return softplus(-found)
