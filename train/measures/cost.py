"""How many images go through the denoiser for what is measured beside the held-out loss."""

from __future__ import annotations

from collections.abc import Sequence

from train.data.split import TrainSplit
from train.loop.probes import PROBED_POINTS
from train.measures.images import COLUMNS, WITH_OTHERS, measured_images, unmeasured
from train.measures.trigger import bare_prompts
from train.settings.data import DataConfig


def measured_beside(split: TrainSplit, heldout_prompts: Sequence[str], config: DataConfig) -> tuple[int, int, int]:
    """Images at each held-out measurement, at each of those with a checkpoint, and once; the base's measurement is one of both."""
    triggered = len(bare_prompts(split.heldout, heldout_prompts, config))
    return triggered * PROBED_POINTS, unmeasured(split.train) * len(COLUMNS), len(measured_images(split.train)) * len(COLUMNS) * WITH_OTHERS
