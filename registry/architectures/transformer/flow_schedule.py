"""Timesteps of the flow pipelines that take even sigmas from 1 to 1/steps, shifted by the number of image tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from registry.architectures.transformer.packing import packed_tokens
from registry.family_protocols import Mu, SetTimesteps

CELL = 8  # pixels per latent cell, in the VAEs of all families whose shift depends on the number of tokens


def even_sigmas(mu: Mu) -> SetTimesteps:
    """A family's `set_timesteps`: even sigmas from 1 to 1/steps, shifted by `mu` where the scheduler shifts by resolution."""

    def set_timesteps(scheduler: Any, steps: int, *, height: int, width: int) -> None:
        set_even_sigmas(scheduler, steps, mu=mu(scheduler.config, height=height, width=width, steps=steps))

    return set_timesteps


def set_even_sigmas(scheduler: Any, steps: int, *, mu: float | None) -> None:
    """Even sigmas from 1 to 1/steps, shifted by `mu` where the scheduler shifts by resolution, begin index 0.

    A scheduler that takes no sigmas (DPM++), or makes flow's own, uses its own timesteps.
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


def linear_mu(config: Mapping[str, Any], *, tokens: int) -> float:
    """mu of the timestep shift: linear in the token count, 0.5 at 256 tokens and 1.15 at 4096 unless the config has other ends."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
    return float(tokens * slope + config.get("base_shift", 0.5) - slope * low)


def mu_of_size(config: Mapping[str, Any], *, height: int, width: int, steps: int) -> float:
    """The linear mu of an image's packed tokens, 16 x 16 pixels each."""
    return linear_mu(config, tokens=packed_tokens(height, width, factor=CELL))
