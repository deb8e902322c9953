"""Measures of an image that a caption does not show: detail, blur, and whether there is anything on it.

All are computed on luma while a set is read. Thresholds were set on photographs (JPEG, quality 60 to 95), drawings and their enlarged and
blurred copies: what is flagged is flagged with a margin, and some faulty images are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from train.data.overview import Overview

STRIPS, HEIGHT, WIDTH = 8, 8, 256  # of the image at full size: rows whose spectrum is measured
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
    """Of every fourth row and column."""
    across, down = values[::4], values[:, ::4]
    if min(values.shape) < 3:
        return 1.0
    bends = [across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2], down[2:] - 2 * down[1:-1] + down[:-2]]
    variance = (float(across.var()) + float(down.var())) / 2
    if variance < 1.0:
        return 1.0
    return sum(float((bend * bend).mean()) for bend in bends) / 2 / variance


def _detail(image: Image) -> float:
    if image.width < LEAST_WIDTH or image.height < STRIPS * HEIGHT:
        return 1.0
    power, frequencies = _spectrum(image)

    def band(low: float, high: float) -> float:
        return float(power[(frequencies >= low) & (frequencies < high)].mean())

    coarse = band(0.1, 0.15)
    if coarse < NOISE:  # there is nothing to compare with
        return 1.0
    return 0.5 if band(0.25, 0.35) < HALF * coarse else 1.0


def _spectrum(image: Image) -> tuple[Any, Any]:
    """(power, frequency in cycles a pixel) of rows from eight places across the image, averaged."""
    import numpy

    width = min(WIDTH, image.width)
    left = (image.width - width) // 2
    tops = [(image.height - HEIGHT) * place // (STRIPS - 1) for place in range(STRIPS)]
    strips = [numpy.asarray(image.crop((left, top, left + width, top + HEIGHT)).convert("L")) for top in tops]
    rows = numpy.concatenate(strips).astype(numpy.float32)
    rows = (rows - rows.mean(1, keepdims=True)) * numpy.hanning(width).astype(numpy.float32)
    waves = numpy.fft.rfft(rows, axis=1)
    return (waves.real**2 + waves.imag**2).mean(0), numpy.arange(waves.shape[1]) / width
