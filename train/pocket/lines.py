"""Line hints made of a clean picture: its Canny edges, or what a person with a thick pen might draw of it."""

# h w pixels

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from infer.hints.edges import edges

CANNY = 0.3  # share of hints that are plain edges; the rest are scribbles
OUTLINE = 0.4  # share of scribbles that have the outline only
GROUND_DISTANCE = 30  # in sRGB steps: what differs more from the corner's colour is the drawing


def hint(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(h, w, 3) sRGB -> (h, w), 255 on lines and 0 beside them."""
    return canny(pixels) if rng.random() < CANNY else scribble(pixels, rng)


def canny(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(edges(Image.fromarray(pixels)))[..., 0]


def scribble(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Coarse edges or the outline alone, without short strokes, bent a little, 1 to 4 px thick, with soft rims."""
    lines = outline(pixels) if rng.random() < OUTLINE else None
    if lines is None:
        blurred = ndimage.gaussian_filter(pixels.astype(np.float32), (sigma := rng.uniform(0.5, 1.6), sigma, 0))
        lines = canny((blurred + 0.5).astype(np.uint8)) > 0
    lines = without_short(lines, int(rng.integers(2, 14)))
    distance = ndimage.distance_transform_edt(~lines)
    half = rng.uniform(0.3, 1.7)
    drawn = np.clip(half + 0.5 - bent(distance, rng), 0, 1) if lines.any() else np.zeros(lines.shape)
    return (drawn * 255 + 0.5).astype(np.uint8)


def outline(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """The rim of what stands on the ground, whose colour is the corners' median; None where that is next to nothing or all."""
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    away = np.abs(pixels.astype(np.int16) - np.median(corners, axis=0)).max(-1) > GROUND_DISTANCE
    shape = ndimage.binary_fill_holes(ndimage.binary_opening(away))
    if not 0.05 < float(shape.mean()) < 0.95:
        return None
    return np.asarray(shape & ~ndimage.binary_erosion(shape))


def without_short(lines: NDArray[np.bool_], least_px: int) -> NDArray[np.bool_]:
    """Without the strokes of fewer pixels; the longest stays."""
    parts, count = ndimage.label(lines, structure=np.ones((3, 3)))
    if not count:
        return lines
    lengths = np.bincount(parts.ravel())
    lengths[0] = 0
    kept = np.flatnonzero(lengths >= min(least_px, int(lengths.max())))
    return np.isin(parts, kept[kept > 0])


def reshaped(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture (h, w, 3) squeezed, slanted, turned and bent, so that its outline is not the usual one of its noun."""
    height, width, _ = pixels.shape
    turn, slant = rng.uniform(-0.4, 0.4), rng.uniform(-0.35, 0.35)
    squeeze = np.diag(1 / rng.uniform(0.6, 1.05, 2))
    matrix = squeeze @ np.array([[1, slant], [0, 1]]) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.indices((height, width)).reshape(2, -1).T - middle - rng.uniform(-4, 4, 2)
    bend = ndimage.gaussian_filter(rng.standard_normal((2, height, width)), (0, 9, 9))
    bend *= rng.uniform(0, 4.5) / bend.std()
    places = (grid @ matrix.T + middle).T.reshape(2, height, width) + bend
    moved = [ndimage.map_coordinates(pixels[..., c].astype(np.float32), places, order=1, mode="nearest") for c in range(3)]
    return np.asarray(np.stack(moved, -1) + 0.5).astype(np.uint8)


def bent(field: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """The field moved by a smooth random displacement of 0 to 1.3 px root mean square along each axis."""
    shifts = ndimage.gaussian_filter(rng.standard_normal((2, *field.shape)), (0, 5, 5))
    shifts *= rng.uniform(0, 1.3) / shifts.std()
    places = np.indices(field.shape) + shifts
    return np.asarray(ndimage.map_coordinates(field, places, order=1, mode="nearest"))


def agreement(drawn: NDArray[np.bool_], wanted: NDArray[np.bool_], *, tolerance_px: float = 2.0) -> float:
    """F1 of two sets of edge pixels: precision and recall count a pixel as met when the other set has one within the tolerance."""
    if not drawn.any() or not wanted.any():
        return 0.0
    precision = float((ndimage.distance_transform_edt(~wanted)[drawn] <= tolerance_px).mean())
    recall = float((ndimage.distance_transform_edt(~drawn)[wanted] <= tolerance_px).mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)
