"""The mask of an image: what the loss counts, white is trained and black is left out.

A mask is upright, scaled, cropped and mirrored as its image is, then averaged over the pixels of each latent.
"""

# H W latent size

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.formats.image_file import Size, Unreadable
from registry.printable import some
from train.masks.decode import MASK_VERSION, read_alpha, read_mask

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

ALPHA = "alpha"
TRANSFORM = f"exif, grey, bilinear to the image's size and crop, area average to the latent; {MASK_VERSION}"  # a part of every cache key
SMALL = 0.02  # share of the image; below it a mask is noted
Box = tuple[int, int, int, int]  # left, top, right, bottom


class NoMask(Unreadable):
    """An image that has none."""


@dataclass(frozen=True)
class Mask:
    """An image's mask, from a file or from its own alpha channel."""

    name: str  # of its file, or `alpha`
    sha256: str  # of the file that it is read from
    share: float  # of the image that it keeps: its mean
    box: Box  # around all that it keeps, pixels of the upright image
    read: Callable[[], bytes] = field(repr=False, compare=False)

    @property
    def identity(self) -> str:
        """What training depends on."""
        return ALPHA if self.name == ALPHA else self.sha256


def decoded(data: bytes, *, alpha: bool) -> Image:
    """The mask that a file holds, or the alpha channel of an image's. Raises Unreadable."""
    if not alpha:
        return read_mask(data)
    found = read_alpha(data)
    if found is None:
        raise NoMask("it has no alpha channel")
    return found


def read(name: str, read: Callable[[], bytes], size: Size) -> tuple[Mask, list[str]]:
    """The mask of an image of this size, and what is unusual about it. Raises Unreadable for one that cannot be a mask, OSError."""
    data = read()
    image = decoded(data, alpha=name == ALPHA)
    if image.size != (size.width, size.height):
        turned = ", the other way round" if image.size == (size.height, size.width) else ""
        raise Unreadable(
            f"it is {image.width}x{image.height} pixels and its image {size.width}x{size.height}{turned}: save it as its image is shown"
        )
    box = image.getbbox()
    if box is None:
        raise Unreadable("it is black everywhere, so nothing of its image would be trained: white is what is kept")
    share = mean_of(image)
    return Mask(name, hashlib.sha256(data).hexdigest(), share, box, read), remarks(image, share)


def mean_of(image: Image) -> float:
    """Mean of an L image, in 0..1."""
    counts = image.histogram()
    return sum(value * count for value, count in enumerate(counts)) / (255.0 * image.width * image.height)


def remarks(image: Image, share: float) -> list[str]:
    """What is unusual about a mask, in a few words."""
    low, _ = image.getextrema()
    if low == 255:
        return ["keeps the whole image"]
    found = [f"keeps {share:.1%} of its image"] if share < SMALL else []
    return found + (
        ["keeps the border and not the middle: is it inverted? White is trained, black is left out"] if _inverted(image) else []
    )


def _inverted(image: Image) -> bool:
    """Whether the outer tenth is kept and the middle half of each side is not."""
    width, height = image.size
    across, down = max(1, width // 10), max(1, height // 10)
    middle = image.crop((width // 4, height // 4, max(width // 4 + 1, width * 3 // 4), max(height // 4 + 1, height * 3 // 4)))
    edges = [(0, 0, width, down), (0, height - down, width, height), (0, 0, across, height), (width - across, 0, width, height)]
    return mean_of(middle) < 0.2 and min(mean_of(image.crop(edge)) for edge in edges) > 0.8


def at_latents(mask: Image, shape: tuple[int, int]) -> Tensor:
    """The mask averaged over the pixels of each latent: (1, H, W) fp32 in 0..1."""
    import numpy
    import torch

    pixels = torch.from_numpy(numpy.array(mask, dtype=numpy.float32) / 255.0)[None, None]  # (1, 1, h, w)
    return torch.nn.functional.interpolate(pixels, size=shape, mode="area")[0]


def summary(masks: Sequence[Mask]) -> str:
    """How many there are, what they keep, and where they come from."""
    alpha = sum(mask.name == ALPHA for mask in masks)
    mean = sum(mask.share for mask in masks) / len(masks)
    smallest = min(masks, key=lambda mask: mask.share)
    kinds = some([text for text, count in (("files", len(masks) - alpha), ("alpha channels", alpha)) if count], 2, between=" and ")
    return f"{len(masks)} ({kinds}) keep {mean:.0%} of their images on average, the smallest {smallest.share:.1%}"


def counted_masks(masks: Sequence[Mask | None]) -> dict[str, float] | None:
    """How many images have a mask and the mean share that is kept, as JSON has it; None without any."""
    shares = [mask.share for mask in masks if mask is not None]
    return {"pictures": len(shares), "kept": sum(shares) / len(shares)} if shares else None
