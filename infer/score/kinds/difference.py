"""How much an image differs from the one it is held against."""

from __future__ import annotations

from typing import Any

from infer.score.against_first import AxisOption, against_first
from infer.score.scorer import SCORES, Scene, Scorer


@SCORES.add("difference")
def difference(scene: Scene, *, axis: AxisOption = None) -> Scorer:
    """Mean absolute difference of the pixels to those of the same prompt and seed at the first value of the other axes."""
    return against_first(
        "Mean over pixels and channels of the absolute difference to another image.",
        unit="0 to 255",
        better=None,
        scene=scene,
        axis=axis,
        measure=_mean,
    )


def _mean(pixels: Any, other: Any) -> float:
    return float(abs(pixels - other).mean())
