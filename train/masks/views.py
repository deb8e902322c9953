"""A mask as the views of its image see it: the share of each latent that it keeps, and views of which it keeps nothing."""

# H W latent size

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from registry.errors import Faults, JobFailed
from train.data.images import fit
from train.data.items import Item, View
from train.masks.mask import ALPHA, at_latents, decoded

if TYPE_CHECKING:
    from torch import Tensor


def kept_of(item: Item, view: View, shape: Sequence[int]) -> Tensor:
    """(1, 1, H, W) fp32 in 0..1 for a view whose latents are (C, H, W); ones without a mask. Raises JobFailed where nothing is kept."""
    import torch

    mask = item.sample.mask
    height, width = shape[-2:]
    if mask is None:
        return torch.ones(1, 1, height, width)
    data = mask.read()
    if hashlib.sha256(data).hexdigest() != mask.sha256:
        raise JobFailed(f"The mask of {item.sample.name} changed while the run was starting. Start it again.")
    grey = decoded(data, alpha=mask.name == ALPHA)
    cut = fit(grey, item.bucket.width, item.bucket.height, corner=(view.left, view.top), flipped=view.flipped, is_mask=True)
    kept = at_latents(cut, (height, width))
    if not bool(kept.any()):
        raise JobFailed(_nothing(item))
    return kept[None]


def check_views(items: Iterable[Item]) -> None:
    """Raise Faults for images of which a view leaves out all that the mask keeps."""
    masked = [item for item in items if item.sample.mask is not None]
    if faults := [_nothing(item) for item in masked if not all(_meets(item, view) for view in item.views)]:
        raise Faults("These crops would be trained on nothing:", faults)


def _meets(item: Item, view: View) -> bool:
    """Whether the crop has a part of the box around all that the mask keeps."""
    assert item.sample.mask is not None
    size, (wide, high) = item.sample.size, item.scaled
    across, down = wide / size.width, high / size.height
    left, top, right, bottom = item.sample.mask.box
    if view.flipped:
        left, right = size.width - right, size.width - left
    inside = left * across < view.left + item.bucket.width and right * across > view.left
    return inside and top * down < view.top + item.bucket.height and bottom * down > view.top


def _nothing(item: Item) -> str:
    bucket = item.bucket
    return (
        f"{item.sample.name}: a crop to {bucket.width}x{bucket.height} leaves out all that its mask keeps."
        " Crop the image and its mask yourself, or draw the mask larger"
    )
