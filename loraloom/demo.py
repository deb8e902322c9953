"""`loraloom demo`: a style LoRA learns on the embedded base, is registered, and is shown beside the base. Offline, on a CPU, in minutes.

The journey is the real one: the same training, registry and grid that `loraloom train` and `loraloom grid` run. A second run finds
the adapter and the pictures by their content and makes only what is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import Refused
from registry.progress import Report

STYLE = "ink"  # datasets/ink: black ink drawings, a style the base has never seen
WEIGHTS = (0.5, 1.0)
SEEDS = (11, 12)
PROMPTS = 6  # of the held-out captions


@dataclass(frozen=True)
class Figures:
    """What the demo measured: held-out loss, and mean colour saturation (0 grey .. 255 pure colour) of pictures."""

    heldout_base: float
    heldout_adapter: float
    saturation_base: float
    saturation_adapter: float
    saturation_truth: float

    def sentences(self) -> list[str]:
        """The figures, each with what it means."""
        change = 100 * (self.heldout_adapter / self.heldout_base - 1)
        return [
            f"held-out loss      base {self.heldout_base:.3f}  ->  LoRA {self.heldout_adapter:.3f}  ({change:+.0f} %)",
            "    how well each predicts the noise in ink drawings it was never trained on; lower is better.",
            f"colour saturation  base {self.saturation_base:.0f}  ->  LoRA {self.saturation_adapter:.0f}   (true drawings {self.saturation_truth:.0f})",
            "    0 is black and white, 255 is pure colour; ink has none, so the closer to the true drawings the better.",
        ]


def saturation(paths: Sequence[Path]) -> float:
    """Mean HSV saturation over all pixels of the pictures, 0..255. White paper counts as 0."""
    import numpy
    from PIL import Image

    values = []
    for path in paths:
        with Image.open(path) as image:
            values.append(numpy.asarray(image.convert("RGB").convert("HSV"))[..., 1].mean())
    return float(numpy.mean(values))
