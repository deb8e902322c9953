"""How alike in structure an image is to the one it is held against."""

from __future__ import annotations

from typing import Any

from infer.score.against_first import AxisOption, against_first
from infer.score.luma import luma
from infer.score.scorer import SCORES, Scene, Scorer

SIGMA, RADIUS = 1.5, 5  # pixels: the window of the paper, 11 x 11
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # K1 and K2 of the paper


@SCORES.add("ssim")
def ssim(scene: Scene, *, axis: AxisOption = None) -> Scorer:
    """Structural similarity (Wang et al. 2004) to the image of the same prompt and seed at the first value of the other axes."""
    return against_first(
        "Mean structural similarity (Wang et al. 2004, eq. 13) of the luma to another image: 11 x 11 Gaussian window of 1.5 pixels, without"
        " the border.",
        unit="-1 to 1; 1: equal",
        better=None,
        scene=scene,
        axis=axis,
        measure=_ssim,
    )


def _ssim(pixels: Any, other: Any) -> float:
    from scipy.ndimage import gaussian_filter

    def mean(values: Any) -> Any:
        found = gaussian_filter(values, SIGMA, radius=RADIUS, mode="reflect")
        return found[RADIUS:-RADIUS, RADIUS:-RADIUS] if min(found.shape) > 2 * RADIUS else found

    x, y = luma(pixels), luma(other)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return float((((2 * mx * my + C1) * (2 * cov + C2)) / ((mx * mx + my * my + C1) * (vx + vy + C2))).mean())
