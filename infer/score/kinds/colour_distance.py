"""How far the colours of an image are from those of references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer.score.references import Comparison, References, Take, against_references
from infer.score.scorer import SCORES, Scene, Scorer

if TYPE_CHECKING:
    from PIL.Image import Image

LEVELS = 256  # quantiles of each channel that are compared
WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees
TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))  # of linear sRGB


@SCORES.add("colour_distance")
def colour_distance(scene: Scene, *, references: References, take: Take = "mean") -> Scorer:
    """Distance of the distributions of L*, a* and b* to those of reference images, wherever in the image the colours are."""
    return against_references(
        "Mean over L*, a* and b* (CIELAB, D65) of the Wasserstein-1 distance between the distributions of two images' pixels, by"
        f" {LEVELS} quantiles.",
        unit="0 and up, in CIELAB units: about 2 is just visible in a flat colour",
        better="lower",
        references=references,
        take=take,
        comparison=Comparison(open=lambda: _quantiles, distance=lambda one, other: float(abs(one - other).mean())),
    )


def _quantiles(image: Image) -> Any:
    """(LEVELS, 3): the quantile function of each channel at the middles of equal steps."""
    import numpy

    values = lab(numpy.asarray(image.convert("RGB"), dtype=numpy.float64)).reshape(-1, 3)
    return numpy.quantile(values, (numpy.arange(LEVELS) + 0.5) / LEVELS, axis=0)


def lab(pixels: Any) -> Any:
    """CIELAB (..., 3) of sRGB in 0..255 (IEC 61966-2-1; CIE 15:2004)."""
    import numpy

    shares = pixels / 255
    linear = numpy.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    xyz = linear @ numpy.array(TO_XYZ).T / numpy.array(WHITE)
    edge = 6 / 29
    root = numpy.where(xyz > edge**3, numpy.cbrt(xyz), xyz / (3 * edge**2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return numpy.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
