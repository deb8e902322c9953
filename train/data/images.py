"""An image as training sees it: upright, opaque on white, its short side scaled to the resolution, cropped at the centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TRANSFORM = "exif, white under alpha, lanczos short side, centre crop; 1"  # its version is a part of every latent cache key
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")


def fit(image: Image, resolution: int) -> Image:
    """The image `resolution` pixels square: short side scaled, the middle kept."""
    from PIL import Image

    width, height = image.size
    scale = resolution / min(width, height)
    scaled = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.LANCZOS)
    left, top = (scaled[0] - resolution) // 2, (scaled[1] - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def to_pixels(image: Image) -> Tensor:
    """The image as a tensor (3, h, w) in [-1, 1]."""
    import numpy
    import torch

    values = torch.from_numpy(numpy.array(image, dtype=numpy.uint8)).permute(2, 0, 1)  # (3, h, w)
    return values.float() / 127.5 - 1.0
