"""Losses that keep guidance: what a prompt adds over no prompt, or over another image, stays as strong as it is in the base.

A guidance-distilled model predicts the guided result at once. The plain target is what is not guided, so that the usual loss pulls it
back to images without guidance; both losses here hold against that.
"""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from registry.errors import Faults
from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Tensor

CONTRASTS: OptionTable[Callable[..., Tensor]] = OptionTable("contrast")
"""(target (B, C, H, W), other (B, C, H, W), *, options) -> what the entry says (B, C, H, W)."""

Scale = Annotated[float, Meaning("guidance that the target is given: 1 is the plain target", 1.0, 100.0)]
Share = Annotated[float, Meaning("share of the other image's error that is taken off the loss (lambda)", 0.0, 0.99, open_least=True)]


@CONTRASTS.add("none")
def none(target: Tensor, other: Tensor) -> Tensor:
    """The plain target."""
    return target


@CONTRASTS.add("guidance")
def guidance(target: Tensor, other: Tensor, *, contrast_guidance: Scale = 3.0) -> Tensor:
    """The target guided: u + s (target - u), u the model's own prediction without a prompt (Ho & Salimans 2022, eq. 6, on the target).

    Known as contrastive guidance loss (ai-toolkit's do_guidance_loss): guidance stays distilled in.
    """
    plain, without = target.float(), other.float()
    return without + contrast_guidance * (plain - without)


@CONTRASTS.add("delta_fm")
def delta_fm(target: Tensor, other: Tensor, *, contrast_weight: Share = 0.05) -> Tensor:
    """The target moved from another image's, (target - w other) / (1 - w): (1 - w) |v - it|^2 is |v - target|^2 - w |v - other|^2 and what
    no weight of the model changes (contrastive flow matching, Stoica et al. 2025, eq. 5).
    """
    return (target.float() - contrast_weight * other.float()) / (1.0 - contrast_weight)


def check_contrast(contrast: str, prediction: str | None, *, batch_size: int, text_encoder: bool, slider: bool) -> None:
    """Refuse a contrast that has no meaning with the run's other settings. Raises Faults."""
    faults = []
    if contrast == "delta_fm" and prediction == "epsilon":
        faults.append("delta_fm moves a velocity away from another image's, and this base predicts epsilon. Use none or guidance.")
    if contrast == "delta_fm" and batch_size < 2:
        faults.append("delta_fm takes another image of the batch: give batch_size=2 or more.")
    if contrast == "guidance" and text_encoder:
        faults.append("guidance needs the encoding of no prompt, which lora.text_encoder=true changes with every step.")
    if contrast != "none" and slider:
        faults.append(f"{contrast} moves the target of images, and a slider has its own.")
    if faults:
        raise Faults(f"objective.contrast={contrast} cannot be used here:", faults)
