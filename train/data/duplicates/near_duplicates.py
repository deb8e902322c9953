"""Near duplicates: the same image in another file format, quality or size, found by small copies of the images.

No pair is missed, and few are compared. With d the difference of two copies, |mean(s d)| <= mean|d| for every mask s of values in [-1, 1]:
near duplicates are near in every such projection, and a grid over a few of them gives the candidates.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from struct import pack
from typing import Any, Protocol

from registry.formats.image_file import Size
from registry.images.image_hash import SIDE
from train.data.duplicates.near_points import near_pairs

MEAN = 3.2  # of 255: a JPEG of quality 30 to 95 and a copy of half to double size differ from the original by at most 3.1 (ink, blob)
LARGEST = 40.0  # of 255, of one value: it is 32 in a JPEG of 64 pixels, and 89 in two faces of blob that differ in the mouth alone
SPREAD = 0.25  # of a small copy's own mean deviation: it is below 0.12 in JPEGs of line art, and above 0.55 in other drawings
SHAPE = 0.02  # relative difference of the aspect ratios
PARTS = 4  # a side, that the projections tell apart
CHUNK = 1024  # copies, or pairs of them, that are looked at in one piece
CROWD = 24  # copies in one cell of width CELL, from which on each is compared with the cell's first one alone
CELL = 0.8  # of 255


class Sized(Protocol):
    """What is compared of a sample: its size, and its small copy (empty: it is like no other)."""

    @property
    def size(self) -> Size: ...

    @property
    def small(self) -> bytes: ...


def near_duplicates(samples: Sequence[Sized]) -> list[list[int]]:
    """The places of samples that show one image, a list for each such image; those that occur once are left out."""
    import numpy

    groups = _Groups(len(samples))
    seen = _seen(samples)
    if not len(seen.places):
        return []
    _, firsts, which = numpy.unique(seen.keys, return_index=True, return_inverse=True)  # equal copies are one
    for place, first in zip(seen.places.tolist(), seen.places[firsts][which].tolist(), strict=True):
        if place != first:
            groups.join(first, place)
    firsts.sort()
    of, points, reach = seen.places[firsts], seen.points[firsts], seen.reach[firsts]
    del seen, firsts, which
    is_alone = numpy.ones(len(of), dtype=bool)  # copies that are compared with all near ones
    for crowd in _crowds(points):  # frames of one still scene: their pairs are too many to look at
        first, *others = of[crowd].tolist()
        joined = _join(groups, samples, [(first, other) for other in others])
        is_alone[crowd[numpy.isin(of[crowd], joined)]] = False
    of, points, reach = of[is_alone], points[is_alone], reach[is_alone]
    for ones, others in near_pairs(points, reach):
        for start in range(0, len(ones), CHUNK):
            pairs = zip(of[ones[start : start + CHUNK]].tolist(), of[others[start : start + CHUNK]].tolist(), strict=True)
            _join(groups, samples, [(one, other) for one, other in pairs if groups.root(one) != groups.root(other)])
    return groups.several()


@dataclass(frozen=True)
class _Seen:
    """What is kept of the small copies while they are compared: 108 bytes of each."""

    places: Any  # (N,) of the samples that have one
    keys: Any  # (N,) equal where copies and shapes are
    points: Any  # (N, projections) float32
    reach: Any  # (N,) float32: how far another may be in each of them


def _seen(samples: Sequence[Sized]) -> _Seen:
    import numpy

    masks, places, keys = _masks(), array("q"), bytearray()
    points, reach = numpy.empty((len(samples), masks.shape[1]), numpy.float32), numpy.empty(len(samples), numpy.float32)
    for start in range(0, len(samples), CHUNK):
        done, small = len(places), []
        for place, sample in enumerate(samples[start : start + CHUNK], start):
            if copy := sample.small:
                places.append(place)
                small.append(copy)
                keys += blake2b(copy, digest_size=16).digest() + pack("d", _shape(sample.size))
        copies = _values(small).astype(numpy.float32)
        points[done : len(places)] = copies @ masks
        reach[done : len(places)] = numpy.minimum(MEAN, SPREAD * _spread(copies)) + 1e-3  # of rounding
    found = numpy.array(places)
    return _Seen(found, numpy.frombuffer(keys, dtype="V24"), points[: len(found)], reach[: len(found)])


def _join(groups: _Groups, samples: Sequence[Sized], pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Join the pairs that show one image; gives the others of these."""
    same = [pair for start in range(0, len(pairs), CHUNK) for pair in _same(samples, pairs[start : start + CHUNK])]
    for one, other in same:
        groups.join(one, other)
    return [other for _, other in same]


def _same(samples: Sequence[Sized], pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of the pairs of places that show the same image."""
    import numpy

    ones, others = (_values([samples[place].small for place in places]) for places in zip(*pairs, strict=True))
    differences = numpy.abs(ones - others)
    allowed = numpy.minimum(MEAN, SPREAD * numpy.minimum(_spread(ones), _spread(others)))
    shapes, against = (numpy.array([_shape(samples[place].size) for place in places]) for places in zip(*pairs, strict=True))
    alike = 1 - numpy.minimum(against / shapes, shapes / against) <= SHAPE
    same = (differences.mean(1) <= allowed) & (differences.max(1) <= LARGEST) & alike
    return [pair for pair, holds in zip(pairs, same.tolist(), strict=True) if holds]


def _spread(copies: Any) -> Any:
    """The mean deviation of each copy: a few thin lines on white differ little from any others."""
    import numpy

    return numpy.abs(copies - copies.mean(1, keepdims=True)).mean(1)


def _crowds(points: Any) -> Iterator[Any]:
    """The numbers of the points in each cell of a grid that has more than CROWD."""
    import numpy

    corners = numpy.ascontiguousarray((points / CELL).round().astype(numpy.int16))
    cells = corners.view(f"V{corners.shape[1] * corners.itemsize}").ravel()
    _, which, counts = numpy.unique(cells, return_inverse=True, return_counts=True)
    order, ends = numpy.argsort(which, kind="stable"), numpy.cumsum(counts)
    for cell in numpy.flatnonzero(counts > CROWD).tolist():
        yield order[ends[cell] - counts[cell] : ends[cell]]


def _values(copies: Sequence[bytes]) -> Any:
    """(copies, 768), int16."""
    import numpy

    return numpy.frombuffer(b"".join(copies), dtype=numpy.uint8).reshape(len(copies), SIDE * SIDE * 3).astype(numpy.int16)


@cache
def _masks() -> Any:
    """(768, M) float32: Walsh functions of the brightness, up to three sign changes a side, and two colour differences."""
    import numpy

    square = numpy.array([[1.0]])
    while len(square) < PARTS:  # Sylvester's Hadamard matrices
        square = numpy.block([[square, square], [square, -square]])
    rows = numpy.repeat(square, SIDE // PARTS, axis=1)
    masks = [numpy.einsum("y,x,c->yxc", down, across, [1, 1, 1]) for down in rows for across in rows]
    masks += [numpy.einsum("y,x,c->yxc", rows[0], rows[0], colour) for colour in ([1, 0, -1], [0.5, -1, 0.5])]
    return numpy.stack(masks, -1).reshape(SIDE * SIDE * 3, -1).astype(numpy.float32) / (SIDE * SIDE * 3)


def _shape(size: Size) -> float:
    return size.width / size.height


class _Groups:
    """Disjoint sets of places; the smallest place of each is its root."""

    def __init__(self, count: int) -> None:
        self._parents = array("q", range(count))

    def root(self, one: int) -> int:
        parents = self._parents
        while parents[one] != one:
            parents[one] = one = parents[parents[one]]
        return one

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self._parents[second] = first

    def several(self) -> list[list[int]]:
        """The sets of more than one, in the order of their first places."""
        found: dict[int, list[int]] = {}
        for place in range(len(self._parents)):
            if (root := self.root(place)) != place:
                found.setdefault(root, [root]).append(place)
        return [found[root] for root in sorted(found)]
