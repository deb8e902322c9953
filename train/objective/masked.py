"""The loss of an image with a mask: the mean of its elements, each with its weight."""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def loss_weights(kept: Tensor, *, unmasked: float, normalize: bool) -> Tensor:
    """Weights of the elements of each image, like `kept` (B, 1, H, W), the share of each latent that its mask keeps: u + (1 - u) kept.

    `normalize` divides by their mean: the loss is then the mean over what is kept, and images count alike whatever the size of what
    they show (OneTrainer's normalize_masked_area_loss). Without it an image counts by the share that it keeps, as in sd-scripts.
    """
    weights = unmasked + (1.0 - unmasked) * kept
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True) if normalize else weights


def mean_by_image(elements: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of each image's elements (B, C, H, W), with weights (B, 1, H, W) where there are any: (B,)."""
    return (elements if weights is None else elements * weights).flatten(1).mean(1)
