"""A smaller copy of an image, made once: what is measured of a whole image is measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST = 256  # pixels of its short side, where the image has them; at most twice that, but one


@dataclass(frozen=True)
class Overview:
    """The image averaged over squares of `factor` pixels. The last column and row may be of fewer: `box` ends where the image does."""

    image: Image
    factor: int
    box: tuple[float, float, float, float]


def overview(image: Image) -> Overview:
    """The image reduced by the largest whole number that leaves LEAST pixels on the short side."""
    factor = max(1, min(image.size) // LEAST)
    smaller = image.reduce(factor) if factor > 1 else image
    return Overview(smaller, factor, (0.0, 0.0, image.width / factor, image.height / factor))
