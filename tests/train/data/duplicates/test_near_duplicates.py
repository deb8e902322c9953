"""Near duplicates are those of all pairs, found by comparing few of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import pytest
from PIL import Image, ImageDraw

from registry.formats.image_file import Size
from registry.images.image_hash import small_copy
from train.data.duplicates import near_duplicates as room
from train.data.duplicates.near_duplicates import LARGEST, MEAN, SPREAD, Sized, near_duplicates
from train.data.overview import overview


@dataclass(frozen=True)
class Copied:
    """A small copy with the size of its image."""

    size: Size
    small: bytes


def photos(count: int, *, seed: int, noise: float) -> list[Copied]:
    """Copies with structure at several scales; every third is followed by one that differs by noise of that deviation."""
    random = numpy.random.default_rng(seed)
    copies = []
    for number in range(count):
        values = numpy.full((16, 16, 3), random.normal(120, 40)) + random.normal(0, 15, 3)
        for cells in (2, 4, 8):
            values = values + numpy.kron(random.normal(0, 50 / cells, (cells, cells, 1)), numpy.ones((16 // cells, 16 // cells, 1)))
        again = [values + random.normal(0, noise, values.shape)] if number % 3 == 0 else []
        copies += [Copied(Size(512, 512), one.clip(0, 255).astype(numpy.uint8).tobytes()) for one in (values, *again)]
    return copies


def drawings(count: int) -> list[Copied]:
    """Lines on white, every fourth twice."""
    random = numpy.random.default_rng(7)
    copies = []
    for number in range(count):
        image = Image.new("RGB", (128, 128), "white")
        for _ in range(6):
            ImageDraw.Draw(image).line([tuple(random.integers(0, 128, 2).tolist()) for _ in range(2)], fill="black", width=2)
        copies += [Copied(Size(512, 512), small_copy(image))] * (1 + (number % 4 == 0))
    return copies


def by_all_pairs(copies: list[Copied]) -> set[tuple[int, int]]:
    """The rule of the module's constants, on every pair."""
    values = numpy.stack([numpy.frombuffer(copy.small, dtype=numpy.uint8).astype(float) for copy in copies])
    spreads = numpy.abs(values - values.mean(1, keepdims=True)).mean(1)
    pairs = set()
    for one in range(len(values)):
        difference = numpy.abs(values[one + 1 :] - values[one])
        allowed = numpy.minimum(MEAN, SPREAD * numpy.minimum(spreads[one + 1 :], spreads[one]))
        near = (difference.mean(1) <= allowed) & (difference.max(1) <= LARGEST)
        pairs |= {(one, one + 1 + int(other)) for other in numpy.flatnonzero(near)}
    return pairs


@pytest.mark.parametrize(
    "copies", [photos(120, seed=1, noise=3.6), photos(90, seed=2, noise=1.0), drawings(120)], ids=["edge", "near", "lines"]
)
def test_no_pair_is_missed_and_none_is_made_up(copies: list[Copied]) -> None:
    groups = near_duplicates(copies)
    pairs = by_all_pairs(copies)
    assert 20 <= len(pairs) < 60
    joined = {place: number for number, places in enumerate(groups) for place in places}
    assert all(joined[one] == joined[other] for one, other in pairs)
    assert sum(len(places) for places in groups) == len({place for pair in pairs for place in pair})


def comparisons(copies: list[Copied], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many pairs of copies are compared whole."""
    counts: list[int] = []
    compare = room._same

    def counting(samples: Sequence[Sized], pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        counts.append(len(pairs))
        return compare(samples, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(room, "_same", counting)
        near_duplicates(copies)
    return sum(counts)


def test_comparisons_grow_with_the_images_and_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (comparisons(photos(count, seed=3, noise=1.0), monkeypatch) for count in (750, 3000))
    assert 250 <= few <= 300 and 990 <= many <= 4.4 * few  # each pair once; all pairs of 4,000 are 8 million
    still = numpy.random.default_rng(4).integers(30, 220, (16, 16, 3)) + numpy.random.default_rng(5).normal(0, 0.3, (3000, 16, 16, 3))
    frames = [Copied(Size(512, 512), values.astype(numpy.uint8).tobytes()) for values in still]
    assert comparisons(frames, monkeypatch) <= 6000 and near_duplicates(frames) == [list(range(3000))]


@pytest.mark.parametrize("size", [(512, 512), (1023, 771), (300, 300), (200, 900)])
def test_a_small_copy_of_the_overview_is_that_of_the_image(size: tuple[int, int]) -> None:
    noise = numpy.random.default_rng(6).integers(0, 256, (9, 7, 3), dtype=numpy.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    view = overview(image)
    assert min(view.image.size) >= 256 or view.factor == 1
    whole, smaller = (numpy.frombuffer(one, dtype=numpy.uint8).astype(int) for one in (small_copy(image), small_copy(view.image, view.box)))
    difference = numpy.abs(whole - smaller)  # Pillow's box filter counts a pixel on an edge whole or not at all: 1 of 16 in an overview
    assert difference.max() <= 6 and difference.mean() <= 0.7


def test_which_of_two_images_comes_first_does_not_decide() -> None:
    (copy,) = photos(1, seed=1, noise=0)[:1]
    wide, narrow = (Copied(Size(width, 5000), copy.small) for width in (5101, 5000))  # 2.02 % of the one, 1.98 % of the other
    assert near_duplicates([wide, narrow]) == near_duplicates([narrow, wide]) == [[0, 1]]
