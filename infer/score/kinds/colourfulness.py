"""How colourful people call an image."""

from __future__ import annotations

from typing import Any

from infer.score.scorer import SCORES, Scene, Scorer, of_pixels


@SCORES.add("colourfulness")
def colourfulness(scene: Scene) -> Scorer:
    """Hasler and Suesstrunk's measure (2003): about 15 slightly, 45 averagely, 80 highly colourful."""
    return of_pixels(
        "sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2), deviations and means of rg = R - G and yb = (R + G) / 2 - B"
        " (Hasler and Suesstrunk 2003, eq. 8).",
        unit="0 and up: 15 slightly, 45 averagely, 82 highly colourful (their table 2)",
        better=None,
        measure=_colourfulness,
    )


def _colourfulness(pixels: Any) -> float:
    red, green, blue = (pixels[..., channel] for channel in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    return float((rg.var() + yb.var()) ** 0.5 + 0.3 * (rg.mean() ** 2 + yb.mean() ** 2) ** 0.5)
