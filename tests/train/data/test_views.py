from dataclasses import replace

import numpy
import pytest
from PIL import Image

from registry.errors import Refused
from registry.formats.image_file import Size
from train.data.dataset import Sample
from train.data.images import fit
from train.data.items import Sizes, View, items_of
from train.data.views import check_flip, corners_of

SAMPLE = Sample("cat.png", "7" * 64, Size(60, 40), "a cat", bytes)


def test_one_crop_is_the_centre() -> None:
    assert corners_of(SAMPLE, (7, 0), 1) == [(3, 0)]


def test_more_crops_are_random_and_differ() -> None:
    found = corners_of(SAMPLE, (20, 0), 8)
    assert len(set(found)) == 8 and all(0 <= left <= 20 and top == 0 for left, top in found)
    assert found == corners_of(replace(SAMPLE, name="other"), (20, 0), 8) != corners_of(replace(SAMPLE, sha256="8" * 64), (20, 0), 8)
    assert corners_of(SAMPLE, (20, 0), 4) == found[:4]


def test_there_are_as_many_as_there_is_room_for() -> None:
    assert corners_of(SAMPLE, (0, 0), 5) == [(0, 0)] and sorted(corners_of(SAMPLE, (2, 0), 5)) == [(0, 0), (1, 0), (2, 0)]


def test_a_mirrored_view_shows_the_same_part_of_the_image() -> None:
    (item,) = items_of([SAMPLE], Sizes(sides=(32,), buckets=False, crops=3, flip=True))
    assert item.scaled == (48, 32) and [view.flipped for view in item.views] == [False] * 3 + [True] * 3
    image = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=numpy.uint8))
    for upright, mirrored in zip(item.views[:3], item.views[3:], strict=True):
        assert mirrored.left == 48 - 32 - upright.left and mirrored.top == upright.top
        one = numpy.asarray(fit(image, 32, 32, corner=(upright.left, upright.top)))
        other = numpy.asarray(fit(image, 32, 32, corner=(mirrored.left, mirrored.top), flipped=True))
        assert numpy.array_equal(one[:, ::-1], other)


def test_the_default_is_the_centre_alone() -> None:
    (item,) = items_of([SAMPLE], Sizes(sides=(32,), buckets=False))
    assert item.views == (View(8, 0),)


def test_captions_with_sides_or_writing_are_not_mirrored() -> None:
    check_flip([SAMPLE, replace(SAMPLE, caption="a bright textile leftover")])
    with pytest.raises(Refused, match=r"cat\.png \(Left\), dog\.png \(text\).*data\.flip=force"):
        check_flip([SAMPLE, replace(SAMPLE, caption="Left hand up"), replace(SAMPLE, name="dog.png", others=("with text",))])
