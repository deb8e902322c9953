"""What the denoiser learns: from a noisy latent at a timestep, the target of its prediction type.

Every objective mixes  noisy = signal x0 + noise n  with two numbers a timestep, taken in float64 from the model's own scheduler:
    epsilon, v_prediction   signal = sqrt(alpha_bar), noise = sqrt(1 - alpha_bar)      (Ho et al. 2020, eq. 4)
    flow                    signal = 1 - sigma,       noise = sigma                    (Liu et al. 2022, eq. 1)
"""

# B batch, C channels, H W latent size, N rows of the scheduler's table

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.names import Table
from train.objective.losses import Moments, mse
from train.objective.masked import mean_by_image
from train.objective.noise import Noises, check_noises
from train.objective.timesteps import quantile_of, shifted, uniform
from train.objective.weighting import Levels, none

if TYPE_CHECKING:
    from torch import Generator, Tensor

LEAST = 1e-6  # share of a timestep distribution below which a band of it is called empty

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
    loss: Callable[[Tensor, Tensor, Moments], Tensor] = mse
    noises: Sequence[tuple[str, Callable[[Noises, Tensor, Sequence[Generator]], Noises]]] = ()  # by name, one after the other
    band: tuple[float | None, float | None] = (None, None)  # least and most timestep, scheduler units


@dataclass(frozen=True)
class Objective:
    """A prediction type with its table: columns (N,) in float64, from the clean end to pure noise."""

    prediction: str
    timesteps: Tensor  # that the denoiser gets, scheduler units
    signal: Tensor
    noise: Tensor
    weights: Tensor  # on the loss at each row
    functions: ObjectiveFunctions
    band: tuple[int, int] | None = None  # first and last row that are trained on; None: every one
    shifts: Mapping[tuple[int, int], float] = field(default_factory=dict)  # by latent (H, W), on top of the table's own; else 1

    def rows(self, quantiles: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Rows of the table (B,) for quantiles (B,) in [0, 1), for latents of this (H, W)."""
        count, shift = len(self.timesteps), 1.0 if size is None else self.shifts.get((size[0], size[1]), 1.0)

        def shares(places: Tensor) -> Tensor:
            return shifted(self.functions.timesteps(places), shift)

        places = quantiles.double()
        if self.band is None:
            return (shares(places) * count).long().clamp(0, count - 1)
        low, high = quantiles_of_band(self.band, count, shares)
        return (shares(low + (high - low) * places) * count).long().clamp(*self.band)

    def noises(self, latents: Tensor, noise: Tensor, generators: Callable[[str], Sequence[Generator]]) -> Noises:
        """The noise of a pass (B, C, H, W), from plain noise; `generators` gives each image one for the noise of a name."""
        found = Noises(noise, noise)
        for name, change in self.functions.noises:
            found = change(found, latents, generators(name))
        return found

    def noisy_and_target(self, latents: Tensor, noise: Tensor, rows: Tensor, *, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(noisy, target), each like `latents` (B, C, H, W). `added`: what is mixed in, where that is not the noise of the target."""
        signal_level, noise_level = (column[rows].to(latents).view(-1, 1, 1, 1) for column in (self.signal, self.noise))
        noisy = signal_level * latents + noise_level * (noise if added is None else added)
        return noisy, TARGETS[self.prediction](latents, noise, signal_level, noise_level)

    def elements(self, prediction: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        """Unweighted loss of each element (B, C, H, W), in fp32 whatever the prediction's dtype."""
        shape = (-1, *[1] * (prediction.ndim - 1))
        share, sigma = self.timesteps[rows] / len(self.timesteps), self.noise[rows] / self.signal[rows]
        moments = Moments(*(column.float().to(prediction.device).view(shape) for column in (share, sigma)))
        return self.functions.loss(prediction, target, moments)

    def losses(self, prediction: Tensor, target: Tensor, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """Weighted loss of each image (B,), in fp32 whatever the prediction's dtype; `weights` (B, 1, H, W) are a mask's."""
        found = mean_by_image(self.elements(prediction, target, rows), weights)
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
    shifts: Mapping[tuple[int, int], float] | None = None,
) -> Objective:
    """The objective of a model, from its own scheduler; `shift` takes the place of a flow scheduler's, `shifts` has those by latent (H, W).

    Raises UnknownName for a prediction type of no table, Refused for noise, a weighting or a band of timesteps that does not suit it.
    """
    import diffusers

    _ = TARGETS[prediction]
    functions = functions or ObjectiveFunctions()
    check_noises([name for name, _ in functions.noises], prediction)
    scheduler = getattr(diffusers, scheduler_class).from_config(dict(scheduler_config))
    flow = prediction == "flow"
    own = max(shifts.values()) if shifts else shift
    timesteps, signal, noise = _flow_table(scheduler, own) if flow else _diffusion_table(scheduler)
    weights = functions.weighting(Levels(prediction, signal, noise))
    if not bool(weights.isfinite().all()):
        raise Refused("objective.weighting is not finite at every timestep of this base: its last one has no signal. Use min_snr or p2.")
    relative = {size: value / own for size, value in (shifts or {}).items()} if own else {}
    band = _band(timesteps, functions, flow=flow)
    return Objective(prediction, timesteps, signal, noise, weights, functions, band, relative)


def quantiles_of_band(band: tuple[int, int], count: int, shares_of: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """The quantiles between which a distribution lies in these rows of `count`: it is truncated, not squeezed."""
    first, last = band
    return quantile_of(first / count, shares_of), 1.0 if last == count - 1 else quantile_of((last + 1) / count, shares_of)


def _band(timesteps: Tensor, functions: ObjectiveFunctions, *, flow: bool) -> tuple[int, int] | None:
    """The rows from the least timestep to below the most (sd-scripts' min_timestep and max_timestep); a flow's begin at 1, not 0."""
    if functions.band == (None, None):
        return None
    count = len(timesteps)
    low, high = functions.band[0] or 0.0, count if functions.band[1] is None else functions.band[1]
    if high > count:
        raise Refused(f"objective.max_timestep={high:g}: this base has {count} timesteps. Give at most that.")
    inside = ((timesteps > low) & (timesteps <= high)) if flow else ((timesteps >= low) & (timesteps < high))
    rows = inside.nonzero().flatten().tolist()
    begin, end = quantiles_of_band((rows[0], rows[-1]), count, functions.timesteps) if rows else (0.0, 0.0)
    if end - begin < LEAST:
        raise Refused(
            f"objective.min_timestep={low:g} and objective.max_timestep={high:g}: the timestep distribution has next to nothing"
            " in between. Widen the band, or choose other timesteps."
        )
    return rows[0], rows[-1]


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
        sigmas = shifted(sigmas, shift)
    return sigmas * count, 1 - sigmas, sigmas
