"""The noise schedule under a named sampler: what the base was trained on stays, whatever scheduler class steps on it.

Two things do not survive diffusers' `from_config`. A base with zero terminal SNR (Lin et al. 2023) keeps it only in classes that take
`rescale_betas_zero_snr`; the others get the rescaled betas themselves. And the Karras and exponential sigmas of the classes in
`SPACED_ENDS` run between the first and the last SPACED sigma, so that under trailing spacing their end depends on the number of
steps: 0.46 at 10 steps where the table ends at 0.039 on `pocket`. They keep linspace, whose ends are the table's.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

# classes that take the ends of Karras and exponential sigmas from the spaced sigmas (DPM-Solver takes the table's)
SPACED_ENDS = frozenset(
    {
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "LMSDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
    }
)
# classes that divide by the signal of the last timestep, which is 0 at zero terminal SNR
DIVIDES = frozenset({"PNDMScheduler"})
DIVIDES_FOR_EPSILON = frozenset({"PNDMScheduler", "DDIMScheduler", "LCMScheduler", "TCDScheduler"})
VERSION = "2"  # counts up where a sampler draws on another schedule than before on some bases: part of those keys alone


def base_settings(scheduler: str, settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What the base's scheduler config adds to a sampler's settings: trailing spacing, rescaled betas."""
    added: dict[str, Any] = {}
    if own.get("timestep_spacing") == "trailing" and not _has_own_sigmas(settings):
        added["timestep_spacing"] = "trailing"
    if _needs_betas(scheduler, own):
        added["trained_betas"] = zero_snr_betas(own)
    return added


def schedule_fault(scheduler: str, own: Mapping[str, Any], *, prediction: str) -> str | None:
    """Why a scheduler class cannot step a base with zero terminal SNR, as the end of a sentence; None where it can."""
    if not own.get("rescale_betas_zero_snr"):
        return None
    if prediction == "epsilon" and scheduler in DIVIDES_FOR_EPSILON:
        return "the base starts from pure noise (zero terminal SNR) and predicts epsilon, which gives 0 / 0 there"
    if scheduler in DIVIDES:
        return "it divides by the signal of the first step, and the base starts from pure noise (zero terminal SNR)"
    return None


def schedule_version(scheduler: str, settings: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """The version of the schedule that enters the key of an image; None where the first one is drawn."""
    moved = own.get("timestep_spacing") == "trailing" and scheduler in SPACED_ENDS and _has_own_sigmas(settings)
    return VERSION if moved or _needs_betas(scheduler, own) else None


def zero_snr_betas(own: Mapping[str, Any]) -> list[float]:
    """The rescaled betas of a base with zero terminal SNR (Lin et al. 2023, algorithm 1), for any class's `trained_betas`.

    The last signal is 2^-24 instead of 0, so that the first sigma is 4096 and not infinite, as in diffusers' own Euler.
    """
    import diffusers
    import numpy

    accepted = inspect.signature(diffusers.EulerDiscreteScheduler.__init__).parameters
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    config = {name: own[name] for name in names if name in own and name in accepted}
    remaining = diffusers.EulerDiscreteScheduler(**config, rescale_betas_zero_snr=True).alphas_cumprod.double().numpy()
    betas: list[float] = (1 - remaining / numpy.concatenate([[1.0], remaining[:-1]])).tolist()
    return betas


def _has_own_sigmas(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("use_karras_sigmas") or settings.get("use_exponential_sigmas"))


def _needs_betas(scheduler: str, own: Mapping[str, Any]) -> bool:
    import diffusers

    if not own.get("rescale_betas_zero_snr"):
        return False
    return "rescale_betas_zero_snr" not in inspect.signature(getattr(diffusers, scheduler).__init__).parameters
