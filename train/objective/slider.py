"""Concept sliders: one LoRA whose weight moves an attribute, more of it above 0 and less below (Gandikota et al. 2023).

At weight +1 the adapter learns the base's prediction moved along the difference of two prompts, at -1 moved the other way. This works on
predictions, so that epsilon, v and the velocity of flow are alike: each is an affine function of the same clean image.
"""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from registry.errors import Faults
from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Tensor

Positive = Annotated[str, Meaning("prompt of the end at weight +1; without it and negative, pairs of images give the ends")]
Negative = Annotated[str, Meaning("prompt of the end at weight -1")]
Target = Annotated[str, Meaning("prompt that the slider acts on; empty: whatever is drawn")]
Preserve = Annotated[Any, Meaning("texts set before all three prompts in turn, whose attributes are to stay as they are: [man, woman]")]
Guidance = Annotated[float, Meaning("how far the ends are from the base, in differences of the two prompts (eta)", 0.0, open_least=True)]
DrawSteps = Annotated[
    int | None,
    Meaning(
        "without images: sampling steps of the drawing whose noisy latents are learned from (default: 20, or a few-step base's own)",
        1,
        1000,
    ),
]


@dataclass(frozen=True)
class Slider:
    """A slider's prompts and its strength."""

    positive: str
    negative: str
    target: str
    preserve: tuple[str, ...]
    guidance: float
    draw_steps: int | None  # None: as the base is drawn

    @property
    def by_text(self) -> bool:
        """Whether two prompts give the ends; else pairs of images do."""
        return bool(self.positive or self.negative)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Target, positive and negative prompt of each preserved text in turn; of none where nothing is preserved."""
        return tuple(joined(held, text) for held in self.preserve or ("",) for text in (self.target, self.positive, self.negative))

    def held(self, quantile: float) -> int:
        """Which preserved text a quantile in [0, 1) draws."""
        return int(quantile * max(1, len(self.preserve)))


OBJECTIVES: OptionTable[Callable[..., Any]] = OptionTable("objective")
"""*, options -> what is learned beside the noise of images: a Slider, a Preference, or nothing."""


@OBJECTIVES.add("denoise")
def denoise() -> None:
    """The noise of the training images: an adapter for their subject or style."""


@OBJECTIVES.add("slider")
def slider(
    *,
    positive: Positive = "",
    negative: Negative = "",
    target: Target = "",
    preserve: Preserve = (),
    guidance: Guidance = 3.0,
    draw_steps: DrawSteps = None,
) -> Slider:
    """A concept slider (Gandikota et al. 2023) between two prompts, or between the images of pairs. Raises Faults."""
    faults = []
    texts = list(preserve) if isinstance(preserve, (list, tuple)) else [preserve]
    if any(not isinstance(text, str) or not text.strip() for text in texts):
        faults.append(f"objective.params.preserve must be a list of texts, none of them empty, got {preserve!r}.")
    ends = [" ".join(text.split()) for text in (positive, negative)]
    if any(ends) and ends[0] == ends[1]:
        faults.append(f"objective.params.positive and negative are both {ends[0]!r}: there is no direction between them.")
    if not any(ends) and (target.strip() or texts):
        faults.append("objective.params.target and preserve go with prompts: give objective.params.positive, negative or both.")
    if faults:
        raise Faults("This slider cannot be trained:", faults)
    return Slider(ends[0], ends[1], " ".join(target.split()), tuple(" ".join(text.split()) for text in texts), guidance, draw_steps)


def joined(held: str, text: str) -> str:
    """The preserved text before the prompt, with a space between, as the paper's prompts have it."""
    return " ".join(part for part in (held, text) if part)


def ends_of(base: Tensor, positive: Tensor, negative: Tensor, *, guidance: float) -> tuple[Tensor, Tensor]:
    """What the adapter learns at weights +1 and -1: base +- guidance (positive - negative), fp32 (Gandikota et al. 2023, eq. 8).

    All three (B, C, H, W) are the base's own predictions at the same noisy latents.
    """
    direction = guidance * (positive.float() - negative.float())
    return base.float() + direction, base.float() - direction


def sampler_step(share: float, steps: int) -> int:
    """Sampler steps done, of `steps`, where a share of the timesteps (1 is pure noise, 0 clean) is left to do."""
    return min(steps - 1, max(0, int((1.0 - share) * steps + 1e-9)))  # 0.1 of 10 is 1


def signs_of(places: Sequence[int], turn: int) -> list[int]:
    """+1 and -1 in turn over the places of a step; `turn` (0 or 1) is which of them place 0 has."""
    return [1 if (place + turn) % 2 == 0 else -1 for place in places]
