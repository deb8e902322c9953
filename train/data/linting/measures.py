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
HALF = 0.025  # power at 0.25 to 0.35 of the sample rate over that at 0.1 to 0.15: 0.06 to 0.2 in photographs, 0.004 to 0.02 at double size
LEAST_WIDTH = 128  # pixels of an image whose spectrum is measured
SAME = 9  # neighbouring levels of 256 that count as one colour


@dataclass(frozen=True)
class ImageMeasures:
    """Measures of one image."""

    sharpness: float  # energy of second differences over the variance, at 256 to 511 pixels on the short side: 0.05 to 0.3 where in focus
    detail: float  # share of its size that holds detail: 1, or 0.5 where a copy of half the size would show as much
    plain: float  # share of the pixels that have one brightness, to SAME levels


def measure(image: Image, view: Overview) -> ImageMeasures:
    """The measures of an image; `view` is its overview."""
    import numpy

    luma = view.image.convert("L")
    values = numpy.asarray(luma).astype(numpy.float32)
    counts = numpy.concatenate([[0], numpy.cumsum(luma.histogram())])
    plain = float((counts[SAME:] - counts[:-SAME]).max()) / values.size
    return ImageMeasures(_sharpness(values), _detail(image), plain)


def _sharpness(values: Any) -> float:
    """Of every sixth row and column."""
    if min(values.shape) < 3:
        return 1.0
    across, down = values[::6], values[:, ::6].T
    variance = bends = 0.0
    for lines in (across, down):
        variance += _square(lines - lines.mean())
        bends += _square(lines[:, 2:] - 2 * lines[:, 1:-1] + lines[:, :-2])
    return bends / variance if variance >= 2.0 else 1.0


def _square(values: Any) -> float:
    """The mean of the squares."""
    flat = values.reshape(-1)
    return float(flat.dot(flat) / flat.size)


def _detail(image: Image) -> float:
    if image.width < LEAST_WIDTH or image.height < ROWS:
        return 1.0
    power, width = _spectrum(image), min(WIDTH, image.width)

    def band(low: float, high: float) -> float:
        return float(power[round(low * width) : round(high * width)].mean())

    coarse = band(0.1, 0.15)
    if coarse < NOISE:  # there is nothing to compare with
        return 1.0
    return 0.5 if band(0.25, 0.35) < HALF * coarse else 1.0


def _spectrum(image: Image) -> Any:
    """The power at each frequency, in steps of one cycle a row, averaged over rows."""
    import numpy
    from PIL import Image

    width = min(WIDTH, image.width)
    left = (image.width - width) // 2
    middle = image.resize((width, ROWS), Image.Resampling.NEAREST, (left, 0, left + width, image.height))  # ROWS of its rows, as they are
    rows = numpy.asarray(middle.convert("L")).astype(numpy.float32)
    rows = (rows - rows.mean(1, keepdims=True)) * _window(width)
    waves = numpy.fft.rfft(rows, axis=1)
    return (waves.real**2 + waves.imag**2).mean(0)


@cache
def _window(width: int) -> Any:
    import numpy

    return numpy.hanning(width).astype(numpy.float32)
