"""What the denoiser learns: from a noisy latent at a timestep, the target of its prediction type.

Every objective mixes  noisy = signal x0 + noise n  with two numbers a timestep, taken in float64 from the model's own scheduler:
    epsilon, v_prediction   signal = sqrt(alpha_bar), noise = sqrt(1 - alpha_bar)      (Ho et al. 2020, eq. 4)
    flow                    signal = 1 - sigma,       noise = sigma                    (Liu et al. 2022, eq. 1)
"""

# B batch, C channels, H W latent size, N rows of the scheduler's table

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.names import Table
from train.objective.losses import mse
from train.objective.masked import mean_by_image
from train.objective.timesteps import uniform
from train.objective.weighting import Levels, none

if TYPE_CHECKING:
    from torch import Tensor


Target = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]  # (x0, n, signal, noise) -> the target

TARGETS: Table[Target] = Table("prediction type")


@TARGETS.add("epsilon")
def epsilon_target(latents: Tensor, noise: Tensor, signal_level: Tensor, noise_level: Tensor) -> Tensor:
    """The noise itself (Ho et al. 2020, eq. 14)."""
    return noise


@TARGETS.add("v_prediction")
def v_target(latents: Tensor, noise: Tensor, signal_level: Tensor, noise_level: Tensor) -> Tensor:
    """v = sqrt(alpha_bar) n - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, appendix D)."""
    return signal_level * noise - noise_level * latents


@TARGETS.add("flow")
def flow_target(latents: Tensor, noise: Tensor, signal_level: Tensor, noise_level: Tensor) -> Tensor:
    """Velocity of the straight path from latents to noise: n - x0 (Liu et al. 2022, eq. 1)."""
    return noise - latents


@dataclass(frozen=True)
class ObjectiveFunctions:
    """What an objective is made of beside its target, options filled."""

    timesteps: Callable[[Tensor], Tensor] = uniform
    weighting: Callable[[Levels], Tensor] = none
    loss: Callable[[Tensor, Tensor], Tensor] = mse


@dataclass(frozen=True)
class Objective:
    """A prediction type with its table: columns (N,) in float64, from the clean end to pure noise."""

    prediction: str
    timesteps: Tensor  # that the denoiser gets, scheduler units
    signal: Tensor
    noise: Tensor
    weights: Tensor  # on the loss at each row
    functions: ObjectiveFunctions

    def rows(self, quantiles: Tensor) -> Tensor:
        """Rows of the table (B,) for quantiles (B,) in [0, 1)."""
        count = len(self.timesteps)
        return (self.functions.timesteps(quantiles.double()) * count).long().clamp(0, count - 1)

    def noisy_and_target(self, latents: Tensor, noise: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(noisy, target), each like `latents` (B, C, H, W)."""
        signal_level, noise_level = (column[rows].to(latents).view(-1, 1, 1, 1) for column in (self.signal, self.noise))
        noisy = signal_level * latents + noise_level * noise
        return noisy, TARGETS[self.prediction](latents, noise, signal_level, noise_level)

    def losses(self, prediction: Tensor, target: Tensor, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """Weighted loss of each image (B,), in fp32 whatever the prediction's dtype; `weights` (B, 1, H, W) are a mask's."""
        found = mean_by_image(self.functions.loss(prediction, target), weights)
        return found * self.weights[rows].to(found)

    def errors(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean squared error of each image (B,), whatever the loss and its timesteps' weights: what runs are compared by."""
        return mean_by_image(mse(prediction, target), weights)


def objective_of(
    prediction: str,
    scheduler_class: str,
    scheduler_config: Mapping[str, Any],
    functions: ObjectiveFunctions | None = None,
    *,
    shift: float | None = None,
) -> Objective:
    """The objective of a model, from its own scheduler; `shift` takes the place of a flow scheduler's.

    Raises UnknownName for a prediction type of no table, Refused for a weighting that does not suit it.
    """
    import diffusers

    _ = TARGETS[prediction]
    functions = functions or ObjectiveFunctions()
    scheduler = getattr(diffusers, scheduler_class).from_config(dict(scheduler_config))
    timesteps, signal, noise = _flow_table(scheduler, shift) if prediction == "flow" else _diffusion_table(scheduler)
    weights = functions.weighting(Levels(prediction, signal, noise))
    if not bool(weights.isfinite().all()):
        raise Refused("objective.weighting is not finite at every timestep of this base: its last one has no signal. Use min_snr or p2.")
    return Objective(prediction, timesteps, signal, noise, weights, functions)


def _diffusion_table(scheduler: Any) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    alphas = scheduler.alphas_cumprod.double()  # (N,)
    return torch.arange(len(alphas), dtype=torch.float64), alphas.sqrt(), (1 - alphas).sqrt()


def _flow_table(scheduler: Any, shift: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Even sigmas, shifted once: by `shift`, else by the scheduler's own where that is static."""
    import torch

    count = int(scheduler.config.num_train_timesteps)
    sigmas = torch.arange(1, count + 1, dtype=torch.float64) / count
    if shift is None and not getattr(scheduler.config, "use_dynamic_shifting", False):
        shift = float(getattr(scheduler.config, "shift", None) or getattr(scheduler.config, "flow_shift", None) or 1.0)
    if shift is not None:
        sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    return sigmas * count, 1 - sigmas, sigmas
