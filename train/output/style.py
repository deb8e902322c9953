"""How near the previews of each step are to the held-out images in style: lightness, contrast, colour and edges.

Held-out loss is lowest while a style is still half there (content is learned first), so the style has a curve of its own. A distance
is the mean over four measures of |mean of the previews - mean of the held-out images| / deviation of the held-out images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MEASURES = ("lightness", "contrast", "colour", "edges")
SMALLEST = 0.02  # deviation of a measure, of its range 0..1, that a set of equal images is given
SIDE = 128  # pixels of the long side, at which edges are compared
REACHED = 0.9  # share of the way to the held-out images, of the nearest step's, at which the style is there


def measures(image: Image) -> tuple[float, ...]:
    """Mean lightness, its deviation, mean difference of the strongest and the weakest colour, mean step between neighbours; each 0..1."""
    import numpy

    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    pixels = numpy.asarray(small, dtype=numpy.float64) / 255.0  # (h, w, 3)
    light = pixels @ numpy.array([0.299, 0.587, 0.114])
    steps = [numpy.abs(numpy.diff(light, axis=axis)).mean() for axis in (0, 1) if light.shape[axis] > 1]
    colour = (pixels.max(2) - pixels.min(2)).mean()
    return float(light.mean()), float(light.std()), float(colour), float(numpy.mean(steps or [0.0]))


@dataclass(frozen=True)
class StyleCurve:
    """Distance of the base's previews, and of those of each step, to the held-out images."""

    base: float
    distances: Mapping[int, float]

    def covered(self, step: int) -> float:
        """Share of the base's distance that is gone at a step; negative where it is further away."""
        return 1.0 - self.distances[step] / self.base

    @property
    def nearest(self) -> int:
        """The step whose previews are nearest, the earliest of equals."""
        return min(self.distances, key=lambda step: (self.distances[step], step))

    @property
    def reached(self) -> int:
        """The first step that is almost as near as the nearest; the nearest where no step is nearer than the base."""
        if self.covered(self.nearest) <= 0:
            return self.nearest
        return next(step for step in sorted(self.distances) if self.covered(step) >= REACHED * self.covered(self.nearest))


def style_curve(heldout: Sequence[Image], previews: Mapping[int, Sequence[Image]]) -> StyleCurve | None:
    """The curve of previews by step, 0 being the base's. None without both, or where the base's are as near as one held-out image."""
    import numpy

    if len(heldout) < 2 or len(previews) < 2 or 0 not in previews:
        return None
    table = numpy.array([measures(image) for image in heldout])  # (images, 4)
    centre, spread = table.mean(0), numpy.maximum(table.std(0, ddof=1), SMALLEST)
    means = {step: numpy.mean([measures(image) for image in images], axis=0) for step, images in previews.items()}
    distances = {step: float((numpy.abs(mean - centre) / spread).mean()) for step, mean in means.items()}
    base = distances.pop(0)
    return StyleCurve(base, dict(sorted(distances.items()))) if base >= 1.0 else None
