"""How far apart the tones of an image are."""

from __future__ import annotations

from typing import Any

from infer.score.luma import luma
from infer.score.scorer import SCORES, Scene, Scorer, of_pixels


@SCORES.add("contrast")
def contrast(scene: Scene) -> Scorer:
    """Standard deviation of the luma: RMS contrast (Peli 1990)."""
    return of_pixels(
        "Standard deviation of the luma: RMS contrast (Peli 1990).", unit="0 to 127.5, of luma in 0..255", better=None, measure=_deviation
    )


def _deviation(pixels: Any) -> float:
    return float(luma(pixels).std())
