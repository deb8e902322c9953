"""How long an image took to draw."""

from __future__ import annotations

from infer.score.scorer import SCORES, Found, Scene, Scorer, Subject


@SCORES.add("seconds")
def seconds(scene: Scene) -> Scorer:
    """Seconds that drawing the image took on the machine that drew it; a reused image keeps its own."""
    return Scorer(
        definition="Wall-clock seconds that drawing the image took, when it was drawn; model loads not counted.",
        unit="seconds",
        better="lower",
        open=lambda: _value,
        inputs=lambda subject: None if subject.seconds is None else {},
        lacks="the time is not known",
        kept=False,
    )


def _value(subject: Subject) -> Found:
    return Found(float(subject.seconds or 0.0))
