"""Findings about the images of a set: blurred, enlarged, of one colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from train.data.dataset import Sample
from train.data.linting.finding import Finding
from train.data.linting.measures import ImageMeasures

PLAIN = 0.997  # share of the pixels that have one brightness; the emptiest drawing of ink has 0.93
BLURRED = 0.01  # of the sharpness: 0.05 to 0.3 in focus, 0.005 with a Gaussian blur of 2 pixels at 512
OF_THE_SET = 0.25  # of the set's median, below which a soft image is an exception and not the set's style
USUAL = 1024  # pixels: the resolution that is assumed where none is given


def image_findings(samples: Sequence[Sample], measures: Mapping[str, ImageMeasures], *, resolution: int | None) -> list[Finding]:
    """What there is to say about the images, in the order of the set."""
    found = []
    plain = [sample.name for sample in samples if measures[sample.name].plain >= PLAIN]
    if plain:
        found.append(
            Finding("one-colour", "almost one colour", tuple(plain), "Remove them, or check that they were saved as they should be")
        )
    known = {*plain}
    measured = {sample.name: measures[sample.name] for sample in samples if sample.name not in known}
    blurred = _blurred(measured)
    if blurred:
        found.append(
            Finding(
                "blurred", "blurred, far more than the set's other images", tuple(blurred), "Remove them: blur is learned like any content"
            )
        )
    known |= {*blurred}
    side = resolution or USUAL
    soft = [s for s in samples if s.name not in known and measures[s.name].detail < 1 and s.size.short * measures[s.name].detail < side]
    if soft:
        names = tuple(f"{sample.name}" for sample in soft)
        found.append(
            Finding(
                "enlarged",
                f"no more detail than at half their size, which is below {side} pixels (enlarged or out of focus)",
                names,
                "Use the originals, or train at a resolution that they have",
            )
        )
    return found


def _blurred(measures: Mapping[str, ImageMeasures]) -> list[str]:
    if len(measures) < 4:  # no set to compare with
        return []
    usual = median(one.sharpness for one in measures.values())
    return [name for name, one in measures.items() if one.sharpness < min(BLURRED, OF_THE_SET * usual)]
