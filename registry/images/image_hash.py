"""Small copies and perceptual hashes of images, and the nearest of several to an image.

The hash is the sign of the low frequencies of a 16 x 16 grey copy against their median (pHash; Zauner 2010, section 3.2): 63 bits. Equal
images differ in none, other images in about half of them; drawings of one style in fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 16  # pixels of the small copy
LOW = 8  # frequencies a side
BITS = LOW * LOW - 1  # the mean is left out
GREY = (0.299, 0.587, 0.114)


def small_copy(image: Image, box: tuple[float, float, float, float] | None = None) -> bytes:
    """The image (of an overview: the box that it fills) averaged to 16 x 16 pixels, RGB."""
    from PIL import Image

    left, top, right, bottom = box or (0, 0, *image.size)
    across = image.width // SIDE
    is_even = left == 0 and right == image.width == across * SIDE and across & (across - 1) == 0
    if is_even and image.height <= image.width:  # the same values in half the time; of taller images Pillow averages the columns first
        image, right = image.reduce((across, 1)), SIDE
    return image.resize((SIDE, SIDE), Image.Resampling.BOX, (left, top, right, bottom)).tobytes()


@dataclass(frozen=True)
class Nearest:
    """The nearest of several images: its place, the bits of the hash that differ, the mean difference of small copies (of 255)."""

    place: int
    bits: int
    difference: float


class Copies:
    """Images by their small copies and hashes, to find the nearest among."""

    def __init__(self, images: Sequence[Image]) -> None:
        import numpy

        self._small = numpy.stack([_small(image) for image in images]) if images else numpy.zeros((0, SIDE, SIDE, 3))
        self._hashes = _hashes(self._small)

    def __len__(self) -> int:
        return len(self._hashes)

    def nearest(self, image: Image, *, but: int | None = None) -> Nearest | None:
        """The nearest to an image; of equal hashes the one whose small copy differs least. `but`: a place that does not count."""
        import numpy

        if len(self) - (but is not None) < 1:
            return None
        small = _small(image)
        bits = (self._hashes != _hashes(small[None])[0]).sum(1)  # (N,)
        differences = numpy.abs(self._small - small).mean((1, 2, 3))
        order = numpy.lexsort((differences, bits))
        place = int(next(place for place in order if place != but))
        return Nearest(place, int(bits[place]), float(differences[place]))


def hash_bits(image: Image) -> Any:
    """The 63 bits of an image, as booleans."""
    return _hashes(_small(image)[None])[0]


def _small(image: Image) -> Any:
    """(16, 16, 3) float64."""
    import numpy

    return numpy.frombuffer(small_copy(image.convert("RGB")), dtype=numpy.uint8).reshape(SIDE, SIDE, 3).astype(numpy.float64)


def _hashes(small: Any) -> Any:
    """(N, 63) bool of (N, 16, 16, 3) copies."""
    import numpy

    grey = small @ numpy.array(GREY)  # (N, 16, 16)
    waves = _waves()
    low = numpy.einsum("ux,nxy,vy->nuv", waves, grey, waves).reshape(len(grey), LOW * LOW)[:, 1:]
    low = low.round(6)  # (N, 63); what is smaller is rounding
    return low > numpy.median(low, axis=1, keepdims=True)


@cache
def _waves() -> Any:
    """(8, 16): the first rows of the DCT-II."""
    import numpy

    return numpy.cos(numpy.pi * numpy.outer(numpy.arange(LOW), numpy.arange(SIDE) + 0.5) / SIDE)
