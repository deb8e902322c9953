"""Findings about the images of a set: blurred, enlarged, of one colour."""

from __future__ import annotations

from collections.abc import Sequence

from train.data.dataset import Sample
from train.data.linting.finding import Finding, median
from train.data.linting.measures import ImageMeasures, SetMeasures

PLAIN = 0.997  # share of the pixels that have one brightness; the emptiest drawing of ink has 0.93
BLURRED = 0.01  # of the sharpness: 0.05 to 0.3 in focus, 0.005 with a Gaussian blur of 2 pixels at 512
OF_THE_SET = 0.25  # of the set's median, below which a soft image is an exception and not the set's style
USUAL = 1024  # pixels: the resolution that is assumed where none is given


def image_findings(samples: Sequence[Sample], measures: SetMeasures, *, resolution: int | None) -> list[Finding]:
    """What there is to say about the images, in the order of the set; `measures` are in the same order."""
    found = []
    plain = [sample.name for sample, one in zip(samples, measures, strict=True) if one.plain >= PLAIN]
    if plain:
        found.append(
            Finding("one-colour", "almost one colour", tuple(plain), "Remove them, or check that they were saved as they should be")
        )
    least = _least_sharpness([one.sharpness for one in measures if one.plain < PLAIN])
    pairs = [(sample, one) for sample, one in zip(samples, measures, strict=True) if one.plain < PLAIN and _may_be_soft(one, least)]
    blurred = [sample.name for sample, one in pairs if one.sharpness < least]
    if blurred:
        found.append(
            Finding(
                "blurred", "blurred, far more than the set's other images", tuple(blurred), "Remove them: blur is learned like any content"
            )
        )
    side = resolution or USUAL
    soft = [s.name for s, one in pairs if one.sharpness >= least and one.detail < 1 and s.size.short * one.detail < side]
    if soft:
        found.append(
            Finding(
                "enlarged",
                f"no more detail than at half their size, which is below {side} pixels (enlarged or out of focus)",
                tuple(soft),
                "Use the originals, or train at a resolution that they have",
            )
        )
    return found


def _may_be_soft(one: ImageMeasures, least: float) -> bool:
    """Few of a set's images."""
    return one.sharpness < least or one.detail < 1


def _least_sharpness(values: Sequence[float]) -> float:
    """The sharpness below which an image is blurred."""
    if len(values) < 4:  # no set to compare with
        return 0.0
    return min(BLURRED, OF_THE_SET * median(values))
