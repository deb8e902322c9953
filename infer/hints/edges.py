"""Canny edges (Canny 1986) of an image, white on black: the hint that canny ControlNets were trained on."""

# h w pixels

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from infer.hints.table import PREPARE
from registry.options import Meaning

if TYPE_CHECKING:
    from PIL.Image import Image

Low = Annotated[float, Meaning("gradient that an edge has where it touches a stronger one: |Sobel x| + |Sobel y|", 0.0, 2040.0)]
High = Annotated[float, Meaning("gradient that an edge has somewhere: |Sobel x| + |Sobel y|", 0.0, 2040.0)]


def thresholds_fault(values: Mapping[str, Any]) -> str | None:
    """What is wrong with `low` and `high` together."""
    low, high = values["low"], values["high"]
    return f"low is {low:g} and high is {high:g}: expected low to be at most high" if low > high else None


@PREPARE.add("edges", check=thresholds_fault)
def edges(image: Image, *, low: Low = 100.0, high: High = 200.0) -> Image:
    """Canny edges, white on black, one pixel wide.

    As OpenCV's Canny(low, high) on grey: Sobel gradients of 3 x 3, no blur before, the gradient's size as |x| + |y|, thinned across the
    edge, weak edges kept where they touch strong ones. 100 and 200 are OpenCV's and A1111's usual thresholds.
    """
    import numpy
    from PIL import Image

    kept = canny(numpy.asarray(image.convert("L"), dtype=numpy.float64), low, high)
    return Image.fromarray(numpy.where(kept, 255, 0).astype(numpy.uint8)).convert("RGB")


def canny(grey: Any, low: float, high: float) -> Any:
    """The edges (h, w) as bools of grey values (h, w) from 0 to 255."""
    import numpy
    from scipy import ndimage

    across, down = (ndimage.sobel(grey, axis=axis, mode="nearest") for axis in (1, 0))
    size = numpy.abs(across) + numpy.abs(down)
    ridge = size * _is_ridge(size, across, down)
    parts, _count = ndimage.label(ridge > low, structure=numpy.ones((3, 3)))
    strong = numpy.unique(parts[ridge > high])
    return numpy.isin(parts, strong[strong > 0])


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
