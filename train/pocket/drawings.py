"""datasets/lines: simple drawings by strokes, white on black as line ControlNets take them, and a mask for inpainting."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

SIZE_PX, PEN_PX = 64, 2.5  # pocket draws an image of its hint's size
SHARPER = 8  # drawn so many times larger, then scaled down for smooth rims
ROOT = Path(__file__).resolve().parents[2] / "datasets" / "lines"

Point = tuple[float, float]  # of a page of 64 x 64, y downwards
Stroke = Sequence[Point]


def arc(x: float, y: float, width: float, height: float, start: float = 0, end: float = 360) -> Stroke:
    """Part of an ellipse around (x, y), `width` and `height` its half axes, from and to degrees (0 is right, 90 below)."""
    steps = max(2, round(abs(end - start) / 6))
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


def closed(*points: Point) -> Stroke:
    return [*points, points[0]]


def star(x: float, y: float, radius: float) -> Stroke:
    tips = [(radius if tip % 2 == 0 else 0.42 * radius, math.radians(36 * tip - 90)) for tip in range(11)]
    return [(x + far * math.cos(angle), y + far * math.sin(angle)) for far, angle in tips]


def lobes(x: float, y: float, size: float) -> Stroke:
    turns = [math.radians(6 * turn) for turn in range(61)]
    return [
        (
            x + size * math.sin(t) ** 3,
            y - size / 16 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
        )
        for t in turns
    ]


DRAWINGS: dict[str, Sequence[Stroke]] = {
    "circle": [arc(32, 32, 25, 25)],
    "heart": [lobes(32, 31, 27)],
    "star": [star(32, 34, 29)],
    "square": [closed((8, 8), (56, 8), (56, 56), (8, 56))],
    "moon": [[*arc(30, 32, 25, 26, 45, 315), *arc(44, 32, 17, 20, 260, 100)]],
    "face": [arc(32, 32, 26, 26), arc(23, 26, 2, 4), arc(41, 26, 2, 4), arc(32, 34, 14, 13, 20, 160)],
    "cat": [
        [*arc(32, 38, 24, 20, -50, 230), (10, 8), (24, 19)],
        [(24, 19), (40, 19), (54, 8), (48, 23)],
        arc(24, 35, 2, 3),
        arc(40, 35, 2, 3),
        [(29, 43), (35, 43), (32, 46), (29, 43)],
    ],
    "fish": [
        [*arc(28, 32, 22, 14, 20, 340), (60, 18), (56, 32), (60, 46), arc(28, 32, 22, 14, 20, 340)[0]],
        arc(16, 29, 1.5, 1.5),
    ],
    "house": [
        closed((10, 30), (32, 7), (54, 30)),
        [(14, 30), (14, 57), (50, 57), (50, 30)],
        [(27, 57), (27, 42), (37, 42), (37, 57)],
    ],
    "tree": [arc(32, 24, 22, 19), [(28, 43), (28, 60), (37, 60), (37, 43)]],
    "car": [
        [(5, 46), (5, 34), (15, 32), (22, 19), (43, 19), (50, 32), (59, 35), (59, 46), (5, 46)],
        arc(18, 47, 7, 7),
        arc(46, 47, 7, 7),
        [(17, 32), (49, 32)],
    ],
    "mushroom": [[*arc(32, 31, 26, 23, 180, 360), (6, 31)], [(24, 31), (22, 57), (42, 57), (40, 31)]],
}


def draw(strokes: Sequence[Stroke], *, size_px: int = SIZE_PX, pen_px: float = PEN_PX) -> Image.Image:
    """The strokes with a round pen, white on black."""
    large, unit, pen = size_px * SHARPER, size_px * SHARPER / 64, pen_px * SHARPER
    page = Image.new("L", (large, large), 0)
    brush = ImageDraw.Draw(page)
    for stroke in strokes:
        points = [(x * unit, y * unit) for x, y in stroke]
        brush.line(points, fill=255, width=round(pen), joint="curve")
        for x, y in points:
            brush.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return page.resize((size_px, size_px), Image.Resampling.BOX).convert("RGB")


def around(picture: Image.Image, *, size_px: int = SIZE_PX) -> Image.Image:
    """A mask for inpainting: white on the white ground around a drawing and 1 px into it, black on the drawing."""
    grey = np.asarray(picture.convert("L").resize((size_px, size_px), Image.Resampling.BOX))
    parts, _count = ndimage.label(grey > 200)
    return Image.fromarray((ndimage.binary_dilation(parts == parts[0, 0]) * 255).astype(np.uint8))


def write(work: Path) -> None:
    """Write the drawings and a mask into the repository's datasets/; the work folder is not needed."""
    (ROOT / "masks").mkdir(parents=True, exist_ok=True)
    around(Image.open(ROOT.parent / "ink" / "house.png")).save(ROOT / "masks" / "around-house.png", optimize=True)
    for name, strokes in DRAWINGS.items():
        draw(strokes).save(ROOT / f"{name}.png", optimize=True)
    print(f"drawings: {len(DRAWINGS)}", flush=True)
