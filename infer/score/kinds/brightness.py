"""How bright an image is."""

from __future__ import annotations

from typing import Any

from infer.score.luma import luma
from infer.score.scorer import SCORES, Scene, Scorer, of_pixels


@SCORES.add("brightness")
def brightness(scene: Scene) -> Scorer:
    """Mean luma (ITU-R BT.601)."""
    return of_pixels("Mean luma (ITU-R BT.601).", unit="0 to 255", better=None, measure=_mean)


def _mean(pixels: Any) -> float:
    return float(luma(pixels).mean())
