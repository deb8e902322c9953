"""How strong the colours of an image are."""

from __future__ import annotations

from typing import Any

from infer.score.scorer import SCORES, Scene, Scorer, of_pixels


@SCORES.add("saturation")
def saturation(scene: Scene) -> Scorer:
    """Mean saturation of HSV (Smith 1978), in per cent: 0 is grey."""
    return of_pixels(
        "Mean over the pixels of HSV's saturation, (max - min) / max of R, G and B (Smith 1978).",
        unit="0 to 100",
        better=None,
        measure=_mean,
    )


def _mean(pixels: Any) -> float:
    import numpy

    most, least = pixels.max(-1), pixels.min(-1)
    return float(100 * ((most - least) / numpy.maximum(most, 1)).mean())
