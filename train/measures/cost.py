"""How many images go through the denoiser for what is measured beside the held-out loss."""

from __future__ import annotations

from collections.abc import Sequence

from train.config import TrainConfig
from train.data.split import TrainSplit
from train.loop.probes import PROBED_POINTS
from train.measures.drift import POINTS, draw_steps, drawn_prompts
from train.measures.images import CAPTIONS, COLUMNS, FEWEST, FINE, SUSPECTS, WITH_OTHERS, measured_images, unmeasured
from train.measures.trigger import bare_prompts


def measured_beside(split: TrainSplit, heldout_prompts: Sequence[str], config: TrainConfig, *, guided: bool) -> tuple[int, int, int]:
    """Images at each held-out measurement, at each of those with a checkpoint, and once; the base's measurement is one of both."""
    triggered = len(bare_prompts(split.heldout, heldout_prompts, config.data))
    generic = len(drawn_prompts(config, len(split.heldout)))
    drawing = generic * draw_steps(config) * (2 if guided else 1)
    images = len(measured_images(split.train))
    again = SUSPECTS * len(FINE) * (1 + CAPTIONS) if images >= FEWEST else 0
    once = (images * len(COLUMNS) + again) * WITH_OTHERS + drawing
    return triggered * PROBED_POINTS, unmeasured(split.train) * len(COLUMNS) + generic * POINTS, once
