"""Thick lines, white on black: the hints of scribble ControlNets, from a photo or from a drawing on paper."""

# h w pixels

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from infer.hints.edges import High, Low, canny, thresholds_fault
from infer.hints.table import PREPARE
from registry.options import Meaning

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 512  # the short side in pixels that lengths of lines are given for: scribble ControlNets were trained at it
DARK = 0.5  # mean grey below which a drawing is no dark lines on white paper

Thickness = Annotated[float, Meaning("width of a line in pixels, where the short side has 512; never less than 3 pixels", 1.0, 128.0)]
Blur = Annotated[float, Meaning("Gaussian blur before, in pixels where the short side has 512: leaves fine texture out", 0.0, 64.0)]
Shortest = Annotated[float, Meaning("lines with fewer pixels are left out, where the short side has 512", 0.0, 4096.0)]
Threshold = Annotated[float | None, Meaning("grey above which the inverted drawing is white, else black; null keeps its greys", 0.0, 254.0)]


@PREPARE.add("scribble", check=thresholds_fault)
def scribble(
    image: Image,
    *,
    low: Low = 30.0,
    high: High = 60.0,
    blur: Blur = 3.0,
    shortest: Shortest = 48.0,
    thickness: Thickness = 8.0,
) -> Image:
    """Thick round lines along the edges, white on black, as if drawn by hand.

    Canny's edges of the blurred image, without short ones, made thick and rounded. Scribble ControlNets take lines of any width: the
    ones of controlnet_aux, thinned edges blurred by sigma 3 and cut at 4 of 255, have 13 pixels at 512.
    """
    import numpy
    from PIL import Image
    from scipy import ndimage

    scale = min(image.size) / SIDE
    grey = ndimage.gaussian_filter(numpy.asarray(image.convert("L"), dtype=numpy.float64), blur * scale, mode="nearest")
    lines = _long(canny(grey, low, high), shortest * scale)
    half = max(1.0, thickness * scale / 2)
    thick = ndimage.distance_transform_edt(~lines) <= half if lines.any() else lines
    rounded = ndimage.gaussian_filter(thick.astype(numpy.float64), half / 2, mode="nearest") > 0.5
    return Image.fromarray(numpy.where(rounded, 255, 0).astype(numpy.uint8)).convert("RGB")


def _long(lines: Any, fewest: float) -> Any:
    """The lines (h, w) that have at least so many pixels."""
    import numpy
    from scipy import ndimage

    parts, _count = ndimage.label(lines, structure=numpy.ones((3, 3)))
    sizes = numpy.bincount(parts.ravel())
    keep = sizes >= fewest
    keep[0] = False  # what is no line
    return keep[parts]


def _dark_fault(image: Image) -> str | None:
    """Why an image is no dark lines on white paper."""
    from PIL import ImageStat

    mean = ImageStat.Stat(image.convert("L")).mean[0] / 255
    if mean >= DARK:
        return None
    return (
        f"is dark for the most part (mean grey {mean:.2f} of 1), no dark lines on white paper. Leave prepare out where its lines are white"
        " on black already; prepare: scribble draws along the edges of a photo."
    )


@PREPARE.add("drawing", note=lambda _values: "dark lines on white paper become white lines on black", refuse=_dark_fault)
def drawing(image: Image, *, threshold: Threshold = None) -> Image:
    """A drawing of dark lines on white paper as white lines on black."""
    from PIL import ImageOps

    inverted = ImageOps.invert(image.convert("L"))
    if threshold is not None:
        inverted = inverted.point([255 if grey > threshold else 0 for grey in range(256)])
    return inverted.convert("RGB")
