"""Measures of an image that a caption does not show: detail, blur, and whether there is anything on it.

All are computed on luma while a set is read. Thresholds were set on photographs (JPEG, quality 60 to 95), drawings and their enlarged and
blurred copies: what is flagged is flagged with a margin, and some faulty images are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from train.data.overview import Overview

ROWS, WIDTH = 48, 256  # of the image at full size, whose spectrum is measured: rows from top to bottom, the middle of each
NOISE = 60.0  # power of a frequency band; rounding to eight bits leaves about 12
COARSE, FINE = (0.1, 0.15), (0.25, 0.35)  # bands of frequencies, as shares of the sample rate
HALF = 0.025  # power in FINE over that in COARSE: 0.06 to 0.2 in photographs, 0.004 to 0.02 at double size
LEAST_WIDTH = 128  # pixels of an image whose spectrum is measured
ROWS_OF_PLAIN = 8  # one row of so many is looked at first
SURELY = 0.99  # below it an image is not of one colour (PLAIN in image_checks.py)
SAME = 9  # neighbouring levels of 256 that count as one colour


@dataclass(frozen=True)
class ImageMeasures:
    """Measures of one image."""

    sharpness: float  # energy of second differences over the variance, at 256 to 511 pixels on the short side: 0.05 to 0.3 where in focus
    detail: float  # share of its size that holds detail: 1, or 0.5 where a copy of half the size would show as much
    plain: float  # share of the pixels that have one brightness, to SAME levels; a bound on it from above where that is below SURELY


def measure(image: Image, view: Overview) -> ImageMeasures:
    """The measures of an image; `view` is its overview."""
    import numpy

    luma = numpy.asarray(view.image.convert("L"))
    return ImageMeasures(_sharpness(luma), _detail(image), _plain(luma))


def _plain(luma: Any) -> float:
    """The share of one brightness; where every eighth row shows that it is below SURELY, the most that it can be."""
    some = luma[::ROWS_OF_PLAIN]
    most = 1 - (1 - _of_one_level(some)) * float(some.size / luma.size)  # where all other rows are of that brightness
    return most if most < SURELY else _of_one_level(luma)


def _of_one_level(luma: Any) -> float:
    import numpy

    counts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(luma.reshape(-1), minlength=256))])
    return float((counts[SAME:] - counts[:-SAME]).max() / luma.size)


def _sharpness(luma: Any) -> float:
    """Of every sixth row and column."""
    import numpy

    if min(luma.shape) < 3:
        return 1.0
    variance = bends = 0.0
    for chosen in (luma[::6], luma[:, ::6].T):
        lines = numpy.ascontiguousarray(chosen).astype(numpy.int16)
        bends += _square((lines[:, 2:] + lines[:, :-2] - 2 * lines[:, 1:-1]).astype(numpy.float32))
        values = lines.astype(numpy.float32)
        values -= values.mean()
        variance += _square(values)
    return bends / variance if variance >= 2.0 else 1.0


def _square(values: Any) -> float:
    """The mean of the squares."""
    flat = values.reshape(-1)
    return float(flat.dot(flat) / flat.size)


def _detail(image: Image) -> float:
    if image.width < LEAST_WIDTH or image.height < ROWS:
        return 1.0
    coarse, fine = _powers(image)
    if coarse < NOISE:  # there is nothing to compare with
        return 1.0
    return 0.5 if fine < HALF * coarse else 1.0


def _powers(image: Image) -> tuple[float, float]:
    """The mean power at the frequencies of COARSE and of FINE, over rows."""
    import numpy
    from PIL import Image

    width = min(WIDTH, image.width)
    left = (image.width - width) // 2
    middle = image.resize((width, ROWS), Image.Resampling.NEAREST, (left, 0, left + width, image.height))  # ROWS of its rows, as they are
    rows = numpy.asarray(middle.convert("L")).astype(numpy.float32)
    rows -= rows.mean(1, keepdims=True)
    rows *= _window(width)
    waves = numpy.fft.rfft(rows, axis=1)  # a matrix product with the waves of the two bands alone is slower

    def power(low: float, high: float) -> float:
        flat = numpy.ascontiguousarray(waves[:, round(low * width) : round(high * width)]).reshape(-1)
        return float(numpy.vdot(flat, flat).real / flat.size)

    return power(*COARSE), power(*FINE)


@cache
def _window(width: int) -> Any:
    import numpy

    return numpy.hanning(width).astype(numpy.float32)
