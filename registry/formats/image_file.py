"""An image file decoded as every room sees it: upright by its EXIF, RGB, opaque on white, eight bits a channel."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import LoomError

if TYPE_CHECKING:
    from PIL.Image import Image

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


class Unreadable(LoomError):
    """Why an image cannot be decoded, in a few words."""


@dataclass(frozen=True)
class Size:
    """An image's size in pixels once upright, and its frames."""

    width: int
    height: int
    frames: int = 1

    @property
    def short(self) -> int:
        return min(self.width, self.height)

    @property
    def cropped(self) -> float:
        """Share of the image that the centre crop takes away."""
        return 1.0 - self.short / max(self.width, self.height)


def decode(data: bytes) -> tuple[Image, Size]:
    """The whole image, upright and RGB on white, and its size. Raises Unreadable."""
    from PIL import Image, ImageOps

    if not data:
        raise Unreadable("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks; a bomb above PIL's limit is an error below
            with Image.open(io.BytesIO(data)) as opened:
                frames = int(getattr(opened, "n_frames", 1))
                opened.load()
                upright = ImageOps.exif_transpose(opened)
            image = _opaque(_eight_bits(upright))
    except Image.DecompressionBombError as error:
        raise Unreadable(f"it is too large ({error})") from error
    except Exception as error:  # PIL's plug-ins raise whatever their formats raise: OSError, SyntaxError, struct.error, ...
        raise Unreadable(f"it cannot be decoded ({_reason(error)})") from error
    return image, Size(image.width, image.height, frames)


def _reason(error: Exception) -> str:
    text = str(error).split("<_io")[0].strip()
    return "no image format PIL knows" if text.startswith("cannot identify") else text or type(error).__name__


def _eight_bits(image: Image) -> Image:
    """16-bit and float images scaled by their range; PIL's own conversion would clip all above 255 to white."""
    if image.mode not in DEEP_MODES:
        return image
    import numpy
    from PIL import Image

    values = numpy.asarray(image, dtype=numpy.float64)
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1.0)
    return Image.fromarray(numpy.clip(values / top * 255.0, 0, 255).round().astype(numpy.uint8))


def _opaque(image: Image) -> Image:
    from PIL import Image

    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")
