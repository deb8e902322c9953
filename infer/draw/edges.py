"""Canny edges (Canny 1986) of an image, white on black: the hint that canny ControlNets were trained on."""

# h w pixels

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LOW, HIGH = 100.0, 200.0  # OpenCV's and A1111's usual thresholds, on the sum of |Sobel x| and |Sobel y|


def edges(image: Image) -> Image:
    """The edges of an RGB image, as an RGB image of 0 and 255.

    As OpenCV's Canny(100, 200) on grey: Sobel gradients of 3 x 3, no blur before, the gradient's size as |x| + |y|, thinned across the
    edge, weak edges kept where they touch strong ones.
    """
    import numpy
    from PIL import Image
    from scipy import ndimage

    grey = numpy.asarray(image.convert("L"), dtype=numpy.float64)  # (h, w)
    across, down = (ndimage.sobel(grey, axis=axis, mode="nearest") for axis in (1, 0))
    size = numpy.abs(across) + numpy.abs(down)
    ridge = size * _is_ridge(size, across, down)
    parts, _count = ndimage.label(ridge > LOW, structure=numpy.ones((3, 3)))
    strong = numpy.unique(parts[ridge > HIGH])
    kept = numpy.isin(parts, strong[strong > 0])
    return Image.fromarray(numpy.where(kept, 255, 0).astype(numpy.uint8)).convert("RGB")


def _is_ridge(size: Any, across: Any, down: Any) -> Any:
    """Where the gradient is the largest among its two neighbours along its own direction, of four directions."""
    import numpy

    padded = numpy.pad(size, 1)
    height, width = size.shape

    def beside(rows: int, columns: int) -> Any:
        return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    steep = numpy.abs(down) * numpy.sqrt(2) - numpy.abs(down)  # tan 22.5 degrees of the other side
    flat = numpy.abs(across) * (numpy.sqrt(2) - 1)
    level, upright = numpy.abs(down) < flat, numpy.abs(across) < steep
    falling = (across * down) > 0  # the gradient points right and down, or left and up
    ridge = numpy.where(level, (size > beside(0, -1)) & (size >= beside(0, 1)), False)
    ridge |= numpy.where(upright & ~level, (size > beside(-1, 0)) & (size >= beside(1, 0)), False)
    slanted = ~level & ~upright
    ridge |= slanted & falling & (size > beside(-1, -1)) & (size > beside(1, 1))
    ridge |= slanted & ~falling & (size > beside(-1, 1)) & (size > beside(1, -1))
    return ridge
