"""Measures of an image that a caption does not show: detail, blur, and whether there is anything on it.

All are computed on luma while a set is read. Thresholds were set on photographs (JPEG, quality 60 to 95), drawings and their enlarged and
blurred copies: what is flagged is flagged with a margin, and some faulty images are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from train.data.overview import Overview

ROWS, WIDTH = 48, 256  # of the image at full size, whose spectrum is measured: rows from top to bottom, the middle of each
NOISE = 60.0  # power of a frequency band; rounding to eight bits leaves about 12
COARSE, FINE = (0.1, 0.15), (0.25, 0.35)  # bands of frequencies, as shares of the sample rate
HALF = 0.025  # power in FINE over that in COARSE: 0.06 to 0.2 in photographs, 0.004 to 0.02 at double size
LEAST_WIDTH = 128  # pixels of an image whose spectrum is measured
COLOURS = 4  # levels of 255 by which an average of a small copy may differ from the others, in an image of one colour
SAME = 9  # neighbouring levels of 256 that count as one colour


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """Measures of one image."""

    sharpness: float  # energy of second differences over the variance, at 256 to 511 pixels on the short side: 0.05 to 0.3 where in focus
    detail: float  # share of its size that holds detail: 1, or 0.5 where a copy of half the size would show as much
    plain: float  # share of the pixels that have one brightness, to SAME levels; 0 where the small copy shows several colours


def measure(image: Image, view: Overview, small: bytes) -> ImageMeasures:
    """The measures of an image; `view` is its overview, `small` its small copy."""
    import numpy

    luma = numpy.asarray(view.image.convert("L"))
    rows = luma if view.image is image else None
    return ImageMeasures(_sharpness(luma), _detail(image, rows), _plain(luma) if _of_one_colour(small) else 0.0)


def _of_one_colour(small: bytes) -> bool:
    """Whether the small copy's averages are alike in each channel."""
    channels = (small[channel::3] for channel in range(3))
    return all(max(values) - min(values) <= COLOURS for values in channels if values)


def _plain(luma: Any) -> float:
    import numpy

    counts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(luma.reshape(-1), minlength=256))])
    return float((counts[SAME:] - counts[:-SAME]).max() / luma.size)


def _sharpness(luma: Any) -> float:
    """Of every sixth row and column."""
    if min(luma.shape) < 3:
        return 1.0
    variance = bends = 0.0
    for lines in (luma[::6].T, luma[:, ::6]):
        values = lines.astype("float32")  # (pixels of a line, lines), in the order of the memory of either
        slopes = values[1:] - values[:-1]
        bends += _square(slopes[1:] - slopes[:-1])
        values -= values.sum() / values.size
        variance += _square(values)
    return bends / variance if variance >= 2.0 else 1.0


def _square(values: Any) -> float:
    """The mean of the squares."""
    flat = values.ravel(order="K")
    return float(flat.dot(flat) / flat.size)


def _detail(image: Image, luma: Any) -> float:
    """`luma`: the image's own, where it was made already."""
    if image.width < LEAST_WIDTH or image.height < ROWS:
        return 1.0
    coarse, fine = _powers(image, luma)
    if coarse < NOISE:  # there is nothing to compare with
        return 1.0
    return 0.5 if fine < HALF * coarse else 1.0


def _powers(image: Image, luma: Any) -> tuple[float, float]:
    """The mean power at the frequencies of COARSE and of FINE, over ROWS rows as they are."""
    import numpy
    from PIL import Image

    width = min(WIDTH, image.width)
    left = (image.width - width) // 2
    if luma is None:
        middle = image.resize((width, ROWS), Image.Resampling.NEAREST, (left, 0, left + width, image.height))
        rows = numpy.asarray(middle.convert("L"))
    else:
        rows = luma[_rows(image.height), left : left + width]
    values = rows.astype(numpy.float32)
    powers = []
    for waves in _waves(width):
        found = (values @ waves).reshape(-1)  # cosines and sines: two numbers of each frequency
        powers.append(2 * float(found.dot(found)) / found.size)
    return powers[0], powers[1]


@lru_cache(maxsize=256)
def _rows(height: int) -> Any:
    """The rows that Pillow's NEAREST takes of so many, as it adds them up."""
    import numpy

    step = height / ROWS
    return numpy.fromiter(accumulate([step / 2] + [step] * (ROWS - 1)), float).astype(int)


@lru_cache(maxsize=64)
def _waves(width: int) -> tuple[Any, Any]:
    """(width, 2 F) float32 for COARSE and FINE: the discrete Fourier transform of a row without its mean, under a Hann window."""
    import numpy

    window = numpy.hanning(width)[:, None]
    bands = []
    for low, high in (COARSE, FINE):
        turns = numpy.outer(numpy.arange(width), numpy.arange(round(low * width), round(high * width))) * (2 * numpy.pi / width)
        waves = window * numpy.concatenate([numpy.cos(turns), numpy.sin(turns)], 1)
        bands.append((waves - waves.mean(0)).astype(numpy.float32))
    return bands[0], bands[1]
