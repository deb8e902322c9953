"""How much fine detail an image has."""

from __future__ import annotations

from typing import Any

from infer.score.luma import luma
from infer.score.scorer import SCORES, Scene, Scorer, of_pixels


@SCORES.add("sharpness")
def sharpness(scene: Scene) -> Scorer:
    """Variance of the Laplacian of the luma (Pech-Pacheco et al. 2000); noise and jagged edges raise it too."""
    return of_pixels(
        "Variance of the Laplacian (4 neighbours) of the luma, without the border (Pech-Pacheco et al. 2000). Noise raises it too.",
        unit="0 and up, of luma in 0..255",
        better=None,
        measure=_variance,
    )


def _variance(pixels: Any) -> float:
    grey = luma(pixels)
    if min(grey.shape) < 3:
        return 0.0
    bends = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(bends.var())
