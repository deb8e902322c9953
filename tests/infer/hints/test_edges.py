"""Canny's edges, and the thick lines of scribbles and drawings."""

import numpy
import pytest
from PIL import Image, ImageDraw

from infer.hints.edges import edges
from infer.hints.lines import drawing, scribble
from infer.hints.table import PREPARE


def test_a_step_has_one_edge_and_a_plain_has_none() -> None:
    step = Image.new("RGB", (8, 6), 0)
    step.paste((255, 255, 255), (4, 0, 8, 6))
    found = numpy.asarray(edges(step))[..., 0]
    assert found.tolist() == [[0, 0, 0, 255, 0, 0, 0, 0]] * 6  # one pixel wide, as OpenCV's Canny(100, 200) has it
    assert not numpy.asarray(edges(Image.new("RGB", (8, 8), (90, 90, 90)))).any()


def test_a_weak_edge_stays_where_it_touches_a_strong_one() -> None:
    values = numpy.zeros((8, 12), dtype=numpy.uint8)
    values[:4, 6:], values[4:, 6:] = 60, 30  # |Sobel x| of 240 and 120
    assert numpy.asarray(edges(Image.fromarray(values).convert("RGB")))[7, 5, 0] == 255
    values[:4] = 0
    assert not numpy.asarray(edges(Image.fromarray(values).convert("RGB"))).any()


def test_thresholds_choose_which_steps_are_edges() -> None:
    step = Image.new("RGB", (8, 6), (100, 100, 100))
    step.paste((110, 110, 110), (4, 0, 8, 6))  # |Sobel x| of 40
    assert not numpy.asarray(edges(step)).any()
    assert numpy.asarray(edges(step, low=10, high=39)).any()
    check = PREPARE["edges"].check
    assert (
        check({"low": 3.0, "high": 2.0}) == "low is 3 and high is 2: expected low to be at most high"
        and check({"low": 2.0, "high": 2.0}) is None
    )


def disc(side: int) -> Image.Image:
    image = Image.new("RGB", (side, side), (255, 255, 255))
    ImageDraw.Draw(image).ellipse((side // 4, side // 4, 3 * side // 4, 3 * side // 4), fill=(200, 60, 40))
    return image


@pytest.mark.parametrize(("side", "across"), [(512, 9), (256, 5), (64, 3)])
def test_a_scribble_is_thick_lines_along_the_edges(side: int, across: int) -> None:
    """At a short side of 64 they are not below 3 pixels."""
    row = numpy.asarray(scribble(disc(side)))[side // 2, : side // 2, 0]
    assert set(numpy.unique(row)) == {0, 255}
    (where,) = numpy.nonzero(row)
    assert abs(len(where) - across) <= 1 and where[0] < side // 4 <= where[-1] + 1 and where[-1] - where[0] == len(where) - 1


def test_a_scribble_leaves_specks_out_and_may_be_empty() -> None:
    image = Image.new("RGB", (512, 512), (255, 255, 255))
    image.paste((0, 0, 0), (200, 200, 204, 204))
    assert not numpy.asarray(scribble(image)).any() and numpy.asarray(scribble(image, shortest=4, blur=0)).any()
    assert not numpy.asarray(scribble(Image.new("RGB", (3, 2)))).any()


def test_a_drawing_is_inverted_and_a_dark_one_is_refused() -> None:
    paper = Image.new("RGB", (4, 1), (255, 255, 255))
    paper.putpixel((1, 0), (0, 0, 0))
    paper.putpixel((2, 0), (155, 155, 155))
    assert numpy.asarray(drawing(paper))[0, :, 0].tolist() == [0, 255, 100, 0]
    assert numpy.asarray(drawing(paper, threshold=99))[0, :, 0].tolist() == [0, 255, 255, 0]
    assert numpy.asarray(drawing(paper, threshold=100))[0, :, 0].tolist() == [0, 255, 0, 0]
    refuse = PREPARE["drawing"].refuse
    assert refuse(paper) is None
    assert "mean grey 0.00 of 1" in str(refuse(Image.new("RGB", (4, 4))))
