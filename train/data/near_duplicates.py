"""Near duplicates: the same image in another file format, quality or size, found by small copies of the images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from registry.formats.image_file import Size

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 16  # pixels of the small copy
MEAN = 3.2  # of 255: a JPEG of quality 30 to 95 and a copy of half to double size differ from the original by at most 3.1 (ink, blob)
LARGEST = 40.0  # of 255, of one value: it is 32 in a JPEG of 64 pixels, and 89 in two faces of blob that differ in the mouth alone
SPREAD = 0.25  # of a small copy's own mean deviation: it is below 0.12 in JPEGs of line art, and above 0.55 in other drawings
SHAPE = 0.02  # relative difference of the aspect ratios


class Sized(Protocol):
    """What is compared of a sample: its size, and its small copy (empty: it is like no other)."""

    @property
    def size(self) -> Size: ...

    @property
    def small(self) -> bytes: ...


def small_copy(image: Image) -> bytes:
    """The image averaged to 16 x 16 pixels, RGB."""
    from PIL import Image

    return image.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def near_duplicates(samples: Sequence[Sized]) -> list[list[int]]:
    """The places of samples that show one image, a list for each such image; those that occur once are left out.

    Compared are only those whose mean brightness is near: a pair's mean difference is at least that of their means.
    """
    import numpy

    places = [place for place, sample in enumerate(samples) if sample.small]
    if len(places) < 2:
        return []
    copies = numpy.stack([numpy.frombuffer(samples[place].small, dtype=numpy.uint8) for place in places]).astype(numpy.int16)
    shapes = numpy.array([_shape(samples[place].size) for place in places])
    means = copies.mean(1)
    spreads = numpy.abs(copies - means[:, None]).mean(1)  # a few thin lines on white differ little from any others
    order = numpy.argsort(means, kind="stable")
    ends = numpy.searchsorted(means[order], means[order] + MEAN, side="right")
    group = list(range(len(places)))
    for rank, one in enumerate(order):
        near = order[rank + 1 : ends[rank]]
        if not len(near):
            continue
        differences = numpy.abs(copies[near] - copies[one])
        allowed = numpy.minimum(MEAN, SPREAD * numpy.minimum(spreads[near], spreads[one]))
        same = (differences.mean(1) <= allowed) & (differences.max(1) <= LARGEST) & (numpy.abs(shapes[near] / shapes[one] - 1) <= SHAPE)
        for other in near[same]:
            _join(group, int(one), int(other))
    found: dict[int, list[int]] = defaultdict(list)
    for number, place in enumerate(places):
        found[_root(group, number)].append(place)
    return [sorted(members) for members in found.values() if len(members) > 1]


def _shape(size: Size) -> float:
    return size.width / size.height


def _root(group: list[int], one: int) -> int:
    while group[one] != one:
        group[one] = one = group[group[one]]
    return one


def _join(group: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(group, one), _root(group, other)))
    group[second] = first
