"""A mask's file, and an image's alpha channel, as grey: upright as `read_image` has the image, eight bits, white is kept."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from registry.formats.image_file import DEEP_MODES, ORIENTATION, Unreadable, reason_of

if TYPE_CHECKING:
    from PIL.Image import Image

MASK_VERSION = 1  # of the decoding: another one gives other values of some file, so it is a part of the keys of what is made of masks


def read_mask(data: bytes) -> Image:
    """The mask as an L image: colours by their luminance, 16 bits by their range, transparent parts black. Raises Unreadable."""
    from PIL import Image

    upright = _upright(data)
    if upright.mode in DEEP_MODES:
        return _eight_bits(upright)
    if not _has_alpha(upright):
        return upright.convert("L")
    clear = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear).convert("L")


def read_alpha(data: bytes) -> Image | None:
    """The alpha channel as an L image; None where the image has none. Raises Unreadable."""
    upright = _upright(data)
    return upright.convert("RGBA").getchannel("A") if _has_alpha(upright) else None


def _upright(data: bytes) -> Image:
    """The first frame in its own mode, turned as its EXIF says."""
    from PIL import Image, ImageOps

    if not data:
        raise Unreadable("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks; a bomb above PIL's limit is an error below
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()
                turned: Image.Image = ImageOps.exif_transpose(opened) if opened.getexif().get(ORIENTATION, 1) != 1 else opened.copy()
    except Image.DecompressionBombError as error:
        raise Unreadable(f"it has too many pixels; scale it down ({error})") from error
    except Exception as error:  # PIL's plug-ins raise whatever their formats raise
        raise Unreadable(f"it cannot be decoded ({reason_of(error)})") from error
    return turned


def _eight_bits(image: Image) -> Image:
    """Whole numbers as shares of 65535, real ones as shares of 1."""
    import numpy
    from PIL import Image

    values = numpy.asarray(image, dtype=numpy.float64)
    top = 65535.0 if image.mode.startswith("I") else 1.0
    if not numpy.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise Unreadable(f"it holds values outside 0 to {top:g}")
    return Image.fromarray((values / top * 255.0).round().astype(numpy.uint8))


def _has_alpha(image: Image) -> bool:
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
