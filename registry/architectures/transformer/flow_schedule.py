"""The timesteps of the flow pipelines that walk even sigmas from 1 to 1/steps, shifted by the number of image tokens."""

from __future__ import annotations

import inspect
from typing import Any


def set_even_sigmas(scheduler: Any, steps: int, *, mu: float) -> None:
    """Even sigmas from 1 to 1/steps, shifted by `mu` where the scheduler shifts by resolution, begun at the first.

    A scheduler that takes no sigmas (DPM++), or makes flow's own, walks its own table of so many steps.
    """
    import numpy

    config = scheduler.config
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    options: dict[str, Any] = {}
    if "sigmas" in accepted and not config.get("use_flow_sigmas", False):
        options["sigmas"] = numpy.linspace(1.0, 1 / steps, steps)
    else:
        options["num_inference_steps"] = steps
    if config.get("use_dynamic_shifting", False) and "mu" in accepted:
        options["mu"] = mu
    scheduler.set_timesteps(**options)
    scheduler.set_begin_index(0)


def shift_of(config: Any, *, tokens: int) -> float:
    """mu of the time shift: linear in the token count, 0.5 at 256 tokens and 1.15 at 4096 unless the scheduler's config says otherwise."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
    return float(tokens * slope + config.get("base_shift", 0.5) - slope * low)
