"""Stick figures of keypoints, in the colours and the order of OpenPose, as ControlNets were trained on them."""

# x to the right, y downwards, in pixels

from __future__ import annotations

from math import atan2, ceil, cos, hypot, pi, sin
from typing import TYPE_CHECKING, Annotated

from infer.hints.figures import Figure, Figures, Point
from infer.hints.table import PREPARE
from registry.options import Meaning

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 512  # the short side in pixels that a limb's width is given for: the figures that ControlNets learned from are drawn so
COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85), (0, 255, 170)),
    *((0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)  # of the 18 points; the first 17 of the limbs too
# pairs of points; a limb has the colour of its number at 0.6
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
CORNERS = 90  # of the polygon of a limb

Stick = Annotated[float, Meaning("half the width of a limb and the radius of a point in pixels, where the short side has 512", 1.0, 64.0)]


@PREPARE.add("keypoints", keypoints=True)
def keypoints(figures: Figures, size: tuple[int, int], *, stick: Stick = 4.0) -> Image:
    """A stick figure of keypoints in a JSON file (OpenPose, COCO, MediaPipe), in OpenPose's colours.

    Points are in pixels of `size` (width, height). Limbs are ellipses between two points, then points are discs, as controlnet_aux
    draws them at 512 pixels and scales them; a limb is left out only where one of its points is missing.
    """
    from PIL import Image, ImageDraw

    finer = max(1, ceil(SIDE / min(size)))
    canvas = Image.new("RGB", (size[0] * finer, size[1] * finer))
    pen, half = ImageDraw.Draw(canvas), stick * min(canvas.size) / SIDE
    for person in figures.people:
        _draw(pen, tuple(point and (point[0] * finer, point[1] * finer) for point in person), half)
    return canvas.reduce(finer) if finer > 1 else canvas


def _draw(pen: object, person: Figure, half: float) -> None:
    for (first, second), colour in zip(LIMBS, COLOURS, strict=False):
        if (a := person[first]) is not None and (b := person[second]) is not None:
            pen.polygon(_ellipse(a, b, half), fill=tuple(int(value * 0.6) for value in colour))  # type: ignore[attr-defined]
    for point, colour in zip(person, COLOURS, strict=True):
        if point is not None:
            x, y = point
            pen.ellipse((x - half, y - half, x + half, y + half), fill=colour)  # type: ignore[attr-defined]


def _ellipse(a: Point, b: Point, half: float) -> list[Point]:
    """The ellipse whose long axis is from a to b."""
    middle, length = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2), hypot(b[0] - a[0], b[1] - a[1]) / 2
    along = atan2(b[1] - a[1], b[0] - a[0])
    found = []
    for corner in range(CORNERS):
        turn = 2 * pi * corner / CORNERS
        x, y = length * cos(turn), half * sin(turn)
        found.append((middle[0] + x * cos(along) - y * sin(along), middle[1] + x * sin(along) + y * cos(along)))
    return found
