"""Measures of an image that a caption does not show: detail, blur, and whether there is anything on it.

All are computed on luma while a set is read. Thresholds were set on photographs (JPEG, quality 60 to 95), drawings and their enlarged and
blurred copies: what is flagged is flagged with a margin, and some faulty images are not.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from registry.images.image_hash import small_copy
from train.data.duplicates.small_copies import SmallCopies

if TYPE_CHECKING:
    from PIL.Image import Image

    from train.data.overview import Overview

ROWS, WIDTH = 48, 256  # of the image at full size, whose spectrum is measured: rows from top to bottom, the middle of each
NOISE = 60.0  # power of a frequency band; rounding to eight bits leaves about 12
COARSE, FINE = (0.1, 0.15), (0.25, 0.35)  # bands of frequencies, as shares of the sample rate
HALF = 0.025  # power in FINE over that in COARSE: 0.06 to 0.2 in photographs, 0.004 to 0.02 at double size
LEAST_WIDTH = 128  # pixels of an image whose spectrum is measured
COLOURS = 4  # levels of 255 by which an average of a small copy may differ from the others, in an image of one colour
TOGETHER = 1 << 19  # bytes of the overviews that are measured together; of twice as many the memory goes back to the system each time
MOST = 16  # images that are measured together, small ones
GLANCE = 48  # every so many bytes of a small copy, a multiple of its three channels
SAME = 9  # neighbouring levels of 256 that count as one colour


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """Measures of one image."""

    sharpness: float  # energy of second differences over the variance, at 256 to 511 pixels on the short side: 0.05 to 0.3 where in focus
    detail: float  # share of its size that holds detail: 1, or 0.5 where a copy of half the size would show as much
    plain: float  # share of the pixels that have one brightness, to SAME levels; 0 where the small copy shows several colours


class SetMeasures:
    """The measures of a set's images, in their order, in three columns, and the small copies of these.

    Some images are measured together: after the decoding of one, neither Pillow's code nor numpy's nor the waves are in the processor's
    caches.
    """

    def __init__(self) -> None:
        self._columns = array("d"), array("d"), array("d")  # as the fields of ImageMeasures
        self._waiting: list[tuple[Overview, Any, SmallCopies]] = []  # with the rows whose spectrum is measured, of one that is reduced
        self._bytes = 0

    def __iter__(self) -> Iterator[ImageMeasures]:
        self.finish()
        return map(ImageMeasures, *self._columns)

    def add(self, image: Image, view: Overview, copies: SmallCopies) -> None:
        """The next image, of which `view` is the overview. Its small copy is appended to `copies` once it is measured."""
        self._waiting.append((view, None if view.image is image else _rows_of(image, None), copies))
        self._bytes += 4 * view.image.width * view.image.height
        if self._bytes >= TOGETHER or len(self._waiting) >= MOST:
            self.finish()

    def finish(self) -> None:
        """Measure the images that wait."""
        small = [small_copy(view.image, view.box) for view, _, _ in self._waiting]
        luma = [_luma(view.image) for view, _, _ in self._waiting]
        sharpness, detail, plain = self._columns
        sharpness.extend(map(_sharpness, luma))
        detail.extend(
            _details(
                [
                    _rows_of(view.image, grey) if view.factor == 1 else rows
                    for (view, rows, _), grey in zip(self._waiting, luma, strict=True)
                ]
            )
        )
        plain.extend(_plain(grey) if _of_one_colour(copy) else 0.0 for copy, grey in zip(small, luma, strict=True))
        for copy, (_, _, copies) in zip(small, self._waiting, strict=True):
            copies.append(copy)
        self._waiting, self._bytes = [], 0


def measure(image: Image, view: Overview) -> ImageMeasures:
    """The measures of one image."""
    measures = SetMeasures()
    measures.add(image, view, SmallCopies())
    (found,) = measures
    return found


def _of_one_colour(small: bytes) -> bool:
    """Whether the small copy's averages are alike in each channel."""
    few = small[::GLANCE]  # of red alone, which tell it of most images
    if few and max(few) - min(few) > COLOURS:
        return False
    channels = (small[channel::3] for channel in range(3))
    return all(max(values) - min(values) <= COLOURS for values in channels if values)


def _luma(image: Image) -> Any:
    """(height, width), uint8."""
    import numpy

    grey = image.convert("L")
    return numpy.frombuffer(grey.tobytes(), dtype=numpy.uint8).reshape(grey.height, grey.width)


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
        bends += _square((slopes[1:] - slopes[:-1]).ravel(order="K"))
        flat = values.ravel(order="K")
        flat -= flat.dot(_ones(flat.size)) / flat.size  # whole numbers, whose sum BLAS has in a third of numpy's time
        variance += _square(flat)
    return bends / variance if variance >= 2.0 else 1.0


def _square(flat: Any) -> float:
    """The mean of the squares."""
    return float(flat.dot(flat) / flat.size)


@lru_cache(maxsize=16)
def _ones(size: int) -> Any:
    import numpy

    return numpy.ones(size, dtype=numpy.float32)


def _rows_of(image: Image, luma: Any) -> Any:
    """The ROWS rows whose spectrum is measured; None of an image that is too small. `luma`: the image's own, where it was made already."""
    import numpy
    from PIL import Image

    if image.width < LEAST_WIDTH or image.height < ROWS:
        return None
    width = min(WIDTH, image.width)
    left = (image.width - width) // 2
    if luma is not None:
        return luma.take(_rows(image.height), axis=0)[:, left : left + width]
    middle = image.resize((width, ROWS), Image.Resampling.NEAREST, (left, 0, left + width, image.height))
    return numpy.asarray(middle.convert("L"))


def _details(several: Sequence[Any]) -> list[float]:
    """The detail of images by their rows."""
    import numpy

    details = [1.0] * len(several)
    by_width: dict[int, list[int]] = defaultdict(list)
    for place, rows in enumerate(several):
        if rows is not None:
            by_width[rows.shape[1]].append(place)
    for width, places in by_width.items():
        values = numpy.stack([several[place] for place in places]).astype(numpy.float32)
        coarse_waves, fine_waves = _waves(width)
        half = _powers(values[:, ::2], fine_waves)  # all rows together have at least half of the power that every second has, each
        for place, rows, coarse, some in zip(places, values, _powers(values, coarse_waves), half, strict=True):
            if coarse < NOISE or some >= 2 * HALF * coarse:  # there is nothing to compare with, or most images
                continue
            if _powers(rows[None], fine_waves)[0] < HALF * coarse:
                details[place] = 0.5
    return details


def _powers(values: Any, waves: Any) -> list[float]:
    """The mean power of each image of (N, rows, width) at the frequencies of the waves."""
    found = (values.reshape(-1, values.shape[-1]) @ waves).reshape(len(values), -1)  # cosines and sines: two numbers of each frequency
    return [2 * float(one.dot(one)) / one.size for one in found]


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
