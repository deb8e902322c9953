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

if TYPE_CHECKING:
    from PIL.Image import Image

    from train.data.overview import Overview

ROWS, WIDTH = 48, 256  # of the image at full size, whose spectrum is measured: rows from top to bottom, the middle of each
NOISE = 60.0  # power of a frequency band; rounding to eight bits leaves about 12
COARSE, FINE = (0.1, 0.15), (0.25, 0.35)  # bands of frequencies, as shares of the sample rate
HALF = 0.025  # power in FINE over that in COARSE: 0.06 to 0.2 in photographs, 0.004 to 0.02 at double size
LEAST_WIDTH = 128  # pixels of an image whose spectrum is measured
COLOURS = 4  # levels of 255 by which an average of a small copy may differ from the others, in an image of one colour
TOGETHER = 1 << 20  # bytes of overviews that wait until they are measured: they stay in the processor's cache of the second level
GLANCE = 48  # every so many bytes of a small copy, a multiple of its three channels
SAME = 9  # neighbouring levels of 256 that count as one colour


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """Measures of one image."""

    sharpness: float  # energy of second differences over the variance, at 256 to 511 pixels on the short side: 0.05 to 0.3 where in focus
    detail: float  # share of its size that holds detail: 1, or 0.5 where a copy of half the size would show as much
    plain: float  # share of the pixels that have one brightness, to SAME levels; 0 where the small copy shows several colours


class SetMeasures:
    """The measures of a set's images, in their order, in three columns.

    Some images are measured together: after the decoding of one, neither numpy's code nor the waves are in the processor's caches.
    """

    def __init__(self) -> None:
        self._columns = array("d"), array("d"), array("d")  # as the fields of ImageMeasures
        self._waiting: list[tuple[Any, Any]] = []  # (luma of the overview, the rows whose spectrum is measured or None)
        self._room: Any = None  # where these are: blocks of their own would leave holes in memory between what is kept of the images
        self._used = 0

    def __iter__(self) -> Iterator[ImageMeasures]:
        self._finish()
        return map(ImageMeasures, *self._columns)

    def add(self, image: Image, view: Overview, small: bytes) -> None:
        """The next image; `view` is its overview, `small` its small copy."""
        import numpy

        grey = view.image.convert("L")
        luma = numpy.frombuffer(grey.tobytes(), dtype=numpy.uint8).reshape(grey.height, grey.width)
        self._columns[2].append(_plain(luma) if _of_one_colour(small) else 0.0)
        rows = _rows_of(image, luma if view.image is image else None)
        needed = luma.size + ROWS * WIDTH
        if self._used + needed > TOGETHER:
            self._finish()
        if needed <= TOGETHER:
            luma, rows = self._kept(luma), None if rows is None else self._kept(rows)
        self._waiting.append((luma, rows))

    def _kept(self, values: Any) -> Any:
        """A copy in the room."""
        import numpy

        if self._room is None:
            self._room = numpy.empty(TOGETHER, dtype=numpy.uint8)
        place = self._room[self._used : self._used + values.size].reshape(values.shape)
        place[...] = values
        self._used += values.size
        return place

    def _finish(self) -> None:
        if self._waiting:
            sharpness, detail, _ = self._columns
            sharpness.extend(_sharpness(luma) for luma, _ in self._waiting)
            detail.extend(_details([rows for _, rows in self._waiting]))
            self._waiting, self._used = [], 0


def measure(image: Image, view: Overview, small: bytes) -> ImageMeasures:
    """The measures of one image."""
    measures = SetMeasures()
    measures.add(image, view, small)
    (found,) = measures
    return found


def _of_one_colour(small: bytes) -> bool:
    """Whether the small copy's averages are alike in each channel."""
    few = small[::GLANCE]  # of red alone, which tell it of most images
    if few and max(few) - min(few) > COLOURS:
        return False
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
        return luma[_rows(image.height), left : left + width]
    middle = image.resize((width, ROWS), Image.Resampling.NEAREST, (left, 0, left + width, image.height))
    return numpy.asarray(middle.convert("L"))


def _details(several: Sequence[Any]) -> list[float]:
    """The detail of images by their rows."""
    details = [1.0] * len(several)
    by_width: dict[int, list[int]] = defaultdict(list)
    for place, rows in enumerate(several):
        if rows is not None:
            by_width[rows.shape[1]].append(place)
    for places in by_width.values():
        for place, coarse, fine in zip(places, *_powers([several[place] for place in places]), strict=True):
            if coarse >= NOISE and fine < HALF * coarse:  # with less there is nothing to compare with
                details[place] = 0.5
    return details


def _powers(several: Sequence[Any]) -> list[list[float]]:
    """The mean power at the frequencies of COARSE and of FINE, of the rows (ROWS, width) of each image."""
    import numpy

    values = numpy.concatenate(several).astype(numpy.float32)
    powers = []
    for waves in _waves(values.shape[1]):
        found = (values @ waves).reshape(len(several), -1)  # cosines and sines: two numbers of each frequency
        powers.append([2 * float(one.dot(one)) / one.size for one in found])
    return powers


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
