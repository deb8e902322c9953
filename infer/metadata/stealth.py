"""Text that NovelAI and extensions of A1111 hide in the lowest bits of an image: of the alpha channel, or of red, green and blue.

Bits run down the columns, first 15 letters that say what follows, then the number of bits in 32, then the text, mostly as gzip.
(NovelAI/novelai-image-metadata; modules/stealth_infotext.py of Forge.)
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LETTERS = 15
ALPHA = {"stealth_pnginfo": False, "stealth_pngcomp": True}  # -> whether the text is compressed
COLOURS = {"stealth_rgbinfo": False, "stealth_rgbcomp": True}
LARGEST = 4 << 20  # bytes of a text


def hidden_text(image: Image) -> str | None:
    """The text that is hidden in an image; None where there is none, or it is damaged."""
    for bands, kinds in (("A", ALPHA), ("RGB", COLOURS)):
        if not {*bands} <= {*image.getbands()}:
            continue
        first = -(-LETTERS * 8 // (image.height * len(bands)))  # columns that hold the letters
        kind = _bytes(_columns(image.crop((0, 0, first, image.height)), bands), 0, LETTERS).decode("latin-1")
        if kind not in kinds:
            continue
        pixels = _columns(image, bands)
        length = int.from_bytes(_bytes(pixels, LETTERS, 4), "big") // 8
        data = _bytes(pixels, LETTERS + 4, min(length, LARGEST))
        try:
            return (_unpacked(data) if kinds[kind] else data).decode("utf-8") if len(data) == length else None
        except (zlib.error, UnicodeDecodeError):
            return None
    return None


def _unpacked(data: bytes) -> bytes:
    """The text of gzip data. Raises zlib.error for what is cut off, or too large."""
    reader = zlib.decompressobj(31)
    text = reader.decompress(data, LARGEST)
    if not reader.eof:
        raise zlib.error("no end")
    return text


def _columns(image: Image, bands: str) -> Any:
    """(width, height, bands) uint8: down the first column, then the second."""
    import numpy

    whole = numpy.stack([numpy.asarray(image.getchannel(band)) for band in bands], axis=-1)  # (height, width, bands)
    return whole.transpose(1, 0, 2)


def _bytes(pixels: Any, start: int, count: int) -> bytes:
    """Bytes of the lowest bits, from a byte on; fewer where the image ends."""
    import numpy

    first, last = start * 8, (start + count) * 8
    _, height, bands = pixels.shape
    column = height * bands
    part = pixels[first // column : -(-last // column)].reshape(-1)[first % column :][: last - first]
    return bytes(numpy.packbits(part[: len(part) // 8 * 8] & 1))
