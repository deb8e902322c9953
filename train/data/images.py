"""An image as training sees it: upright, in sRGB, opaque on white, scaled until it covers its size, what overlaps cropped away."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from registry.formats.image_file import PLUGINS, VERSION, Size

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TRANSFORM = f"exif, sRGB, white under alpha, lanczos to cover, crop; {VERSION}"  # a part of every latent cache key
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
UNREAD = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".psd", ".svg", ".exr", ".hdr", ".jp2", ".tga", ".ppm")


def is_image(file: PurePath) -> bool:
    """Whether a file of this name is read as an image."""
    return is_image_suffix(file.suffix.lower())


def is_image_suffix(suffix: str) -> bool:
    """Whether files of this suffix, in lower case, are read as images."""
    return suffix in SUFFIXES or any(suffix in plugin.suffixes and plugin.installed for plugin in PLUGINS)


def unread_reason(file: PurePath) -> str | None:
    """Why an image file of this name is not read, and what to do; None for what is read, or is no image."""
    return reason_of_suffix(file.suffix.lower())


def reason_of_suffix(suffix: str) -> str | None:
    """unread_reason of files of this suffix, in lower case."""
    for plugin in PLUGINS:
        if suffix in plugin.suffixes:
            return None if plugin.installed else plugin.need
    return f"{suffix} is not read: save it as PNG or JPEG" if suffix in UNREAD else None


def holds_images(folder: Path) -> bool:
    """Whether there are images in the folder, read or not."""
    return os.path.isdir(folder) and any(is_image(file) or unread_reason(file) for file in folder.iterdir())


def scaled_size(size: Size, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the image once it covers width x height pixels."""
    scale = max(width / size.width, height / size.height)
    return max(width, round(size.width * scale)), max(height, round(size.height * scale))


def crop_corner(scaled: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """(left, top) of the centre crop in the scaled image."""
    return (scaled[0] - width) // 2, (scaled[1] - height) // 2


def fit(
    image: Image, width: int, height: int, *, corner: tuple[int, int] | None = None, flipped: bool = False, is_mask: bool = False
) -> Image:
    """The image of width x height pixels: scaled until it covers them, cropped at `corner` (left, top; None: the middle).

    `flipped`: mirrored, left and right exchanged, once it is scaled; the corner counts in the mirrored image. A mask is scaled by a
    filter without negative weights, so that nothing is kept beyond its edge.
    """
    from PIL import Image, ImageOps

    scaled = scaled_size(Size(*image.size), width, height)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR if is_mask else Image.Resampling.LANCZOS)
    if flipped:
        image = ImageOps.mirror(image)
    left, top = crop_corner(scaled, width, height) if corner is None else corner
    return image.crop((left, top, left + width, top + height))


def to_pixels(image: Image) -> Tensor:
    """The image as a tensor (3, h, w) in [-1, 1]."""
    import numpy
    import torch

    values = torch.from_numpy(numpy.array(image, dtype=numpy.uint8)).permute(2, 0, 1)  # (3, h, w)
    return values.float() / 127.5 - 1.0
