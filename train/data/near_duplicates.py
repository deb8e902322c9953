"""Near duplicates: the same image in another file format, quality or size, found by small copies of the images.

No pair is missed, and few are compared. With d the difference of two copies, |mean(s d)| <= mean|d| for every mask s of values in [-1, 1]:
near duplicates are near in every such projection, and a grid over a few of them gives the candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from registry.formats.image_file import Size
from registry.images.image_hash import SIDE
from train.data.near_points import near_pairs

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
    firsts: dict[tuple[bytes, float], int] = {}  # equal copies are one
    for place, sample in enumerate(samples):
        if sample.small:
            groups.join(firsts.setdefault((sample.small, _shape(sample.size)), place), place)
    places = list(firsts.values())
    del firsts
    if len(places) < 2:
        return groups.several()
    points, reach = _projections(samples, places)
    alone = []  # copies that are compared with all near ones
    for cell in _cells(points):
        joined: set[int] = set()
        if len(cell) > CROWD:  # frames of one still scene: their pairs are too many to look at
            joined = set(_join(groups, samples, [(places[cell[0]], places[number]) for number in cell[1:]]))
        alone += [number for number in cell if places[number] not in joined]
    alone.sort()
    of = numpy.array(places)[alone]
    for ones, others in near_pairs(points[alone], reach[alone]):
        for start in range(0, len(ones), CHUNK):
            pairs = zip(of[ones[start : start + CHUNK]].tolist(), of[others[start : start + CHUNK]].tolist(), strict=True)
            _join(groups, samples, [(one, other) for one, other in pairs if groups.root(one) != groups.root(other)])
    return groups.several()


def _join(groups: _Groups, samples: Sequence[Sized], pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Join the pairs that show one image; gives the others of these."""
    same = [pair for start in range(0, len(pairs), CHUNK) for pair in _same(samples, pairs[start : start + CHUNK])]
    for one, other in same:
        groups.join(one, other)
    return [other for _, other in same]


def _same(samples: Sequence[Sized], pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of the pairs of places that show the same image."""
    import numpy

    ones, others = (_values(samples, places) for places in zip(*pairs, strict=True))
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


def _projections(samples: Sequence[Sized], places: Sequence[int]) -> tuple[Any, Any]:
    """((places, projections), how far another may be in each of them), float32."""
    import numpy

    chunks = [_projected(samples, places[start : start + CHUNK]) for start in range(0, len(places), CHUNK)]
    return numpy.concatenate([chunk[0] for chunk in chunks]), numpy.concatenate([chunk[1] for chunk in chunks])


def _cells(points: Any) -> list[list[int]]:
    """The numbers of the points, those of one cell of a grid together."""
    cells: dict[bytes, list[int]] = defaultdict(list)
    for number, corner in enumerate((points / CELL).round().astype("int16")):
        cells[corner.tobytes()].append(number)
    return list(cells.values())


def _projected(samples: Sequence[Sized], places: Sequence[int]) -> tuple[Any, Any]:
    """((places, projections), how far another may be in each of them), float32."""
    import numpy

    copies = _values(samples, places).astype(numpy.float32)
    return copies @ _masks(), numpy.minimum(MEAN, SPREAD * _spread(copies)) + 1e-3  # of rounding


def _values(samples: Sequence[Sized], places: Sequence[int]) -> Any:
    """(places, 768), int16."""
    import numpy

    flat = numpy.frombuffer(b"".join(samples[place].small for place in places), dtype=numpy.uint8)
    return flat.reshape(len(places), -1).astype(numpy.int16)


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
        self._parents = list(range(count))

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
        found: dict[int, list[int]] = defaultdict(list)
        for place in range(len(self._parents)):
            found[self.root(place)].append(place)
        return [members for members in found.values() if len(members) > 1]
