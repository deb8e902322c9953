"""A denoiser in closed form: data of independent numbers N(1.5, 0.3^2), so that every sampler's right result is known.

For x_t = a x_0 + b e the best guess of x_0 is m + s^2 a (x_t - a m) / (a^2 s^2 + b^2), and the probability flow ODE (Song et al. 2021,
eq. 13) takes x_t to m + s (x_t - a m) / sqrt(a^2 s^2 + b^2). A deterministic sampler must converge to the latter, element by element, a
stochastic one to the mean m and the spread s.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

MEAN, SPREAD = 1.5, 0.3
BETAS: Mapping[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def sigma_table(*, zero_snr: bool = False) -> numpy.ndarray[Any, Any]:
    """sqrt((1 - abar) / abar) at timesteps 0 to 999 of Stable Diffusion's betas, in float64; with zero terminal SNR the last is 4096."""
    betas = numpy.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = numpy.sqrt(numpy.cumprod(1 - betas))
    if zero_snr:  # Lin et al. 2023, algorithm 1
        signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
        signal[-1] = 2**-12
    table: numpy.ndarray[Any, Any] = numpy.sqrt(1 - signal**2) / signal
    return table


@dataclass(frozen=True)
class Outcome:
    """What a sampler made of the first noise, and what the closed form makes of it: (N,) numbers each."""

    drawn: Tensor
    exact: Tensor

    @property
    def error(self) -> float:
        """Largest difference, in spreads of the data; NaN where a number is none."""
        return float((self.drawn - self.exact).abs().max() / SPREAD)

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and spread."""
        return float(self.drawn.mean()), float(self.drawn.std())


def sample(scheduler: Any, steps: int, prediction: str, *, zero_snr: bool = False, count: int = 16, consistency: bool = False) -> Outcome:
    """Walk a diffusers scheduler with the perfect denoiser, from seed 0.

    `prediction`: epsilon, v_prediction or flow. `consistency`: the guess of x_0 is the end of the ODE, as distilled models give it.
    """
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    table = numpy.log(sigma_table(zero_snr=zero_snr))
    noise = torch.randn(1, 1, 1, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    latents = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    accepted = inspect.signature(scheduler.step).parameters
    options = {name: value for name, value in (("generator", torch.Generator().manual_seed(1)), ("eta", 0.0)) if name in accepted}
    exact = None
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, time) if hasattr(scheduler, "scale_model_input") else latents
        if prediction == "flow":
            noisy = float(time) / 1000
            signal = 1 - noisy
        else:
            sigma = float(numpy.exp(numpy.interp(float(time), numpy.arange(1000), table)))
            signal = (1 + sigma**2) ** -0.5
            noisy = sigma * signal
        variance = (signal * SPREAD) ** 2 + noisy**2
        end = MEAN + SPREAD * (seen - signal * MEAN) / variance**0.5
        exact = end if exact is None else exact
        clean = end if consistency else MEAN + SPREAD**2 * signal * (seen - signal * MEAN) / variance
        guessed = (seen - signal * clean) / noisy
        output = {"epsilon": guessed, "v_prediction": signal * guessed - noisy * clean, "flow": guessed - clean}[prediction]
        latents = scheduler.step(output, time, latents, return_dict=False, **options)[0]
    assert exact is not None
    return Outcome(latents.flatten(), exact.flatten())
