"""Every entry of the objective's tables in a pass of every trainable family: a loss and a gradient, or a refusal with its reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from registry.errors import Refused
from registry.families import FAMILIES
from tests import tiny
from tests.tiny_families import builds, module_of
from train.choices import objective_functions
from train.config import ObjectiveConfig, ObjectiveParams, TrainConfig
from train.loop.step import TrainState
from train.objective.losses import LOSSES
from train.objective.noise import DIFFUSION_ONLY, NOISES
from train.objective.targets import objective_of
from train.objective.timesteps import TIMESTEPS
from train.objective.weighting import WEIGHTINGS

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
FLOW_ONLY = ("cosmap", "sigma_sqrt", "bell")  # weightings
TRIED: list[dict[str, Any]] = [
    *({"weighting": name} for name in WEIGHTINGS),
    *({"noise": name} for name in NOISES if name != "normal"),
    *({"loss": name} for name in LOSSES if name != "mse"),
    {"loss": "huber", "params": {"schedule": "exponential"}},
    {"loss": "pseudo_smooth_l1", "params": {"schedule": "snr"}},
    *({"timesteps": name} for name in TIMESTEPS),
    {"min_timestep": 600.0, "max_timestep": 900.0},
]
NAMES = ["sd1", "sdxl", "flux1", *sorted({name for name, _ in builds()})]


def fits(options: dict[str, Any], prediction: str) -> bool:
    if prediction == "flow":
        return options.get("noise") not in DIFFUSION_ONLY
    return options.get("weighting") not in FLOW_ONLY


def losses(state: TrainState) -> torch.Tensor:
    """Of the images of the first pass."""
    (batch, *_), *_ = state.order.step(0)
    return state._pass(0, batch, of=len(batch.items))[0]


def gradient_norm(state: TrainState, found: torch.Tensor) -> float:
    gradients = torch.autograd.grad(found.sum(), [weight for _, weight in state.weights], allow_unused=True)
    return float(torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].untrained is None])
def test_every_objective_trains_or_is_refused(name: str, settings: Settings, prepared: Prepared) -> None:
    size = getattr(module_of(name), "SIZE", 64) if name not in ("sd1", "sdxl", "flux1") else 64
    state = prepared(settings(base=str(tiny.shared_folder(name)), resolution=size)).state
    parts, own = state.parts, state.objective
    for options in TRIED:
        params = ObjectiveParams(**options.get("params", {}))
        chosen = objective_functions(ObjectiveConfig(**{"timesteps": "uniform", **options, "params": params}))

        def build(chosen: Any = chosen) -> Any:
            return objective_of(parts.prediction, parts.scheduler_class, parts.scheduler_config, chosen, shifts=own.shifts or None)

        if not fits(options, parts.prediction):
            with pytest.raises(Refused, match="flow model"):
                build()
            continue
        state.objective = build()
        if {"timesteps", "min_timestep"}.isdisjoint(options):  # those of the band and the distributions are other rows of the same table
            with torch.set_grad_enabled("loss" in options and "params" in options):  # weights only scale it
                found = losses(state)
            assert bool(found.isfinite().all() and (found > 0).all()), options
            assert not found.requires_grad or 0 < gradient_norm(state, found) < float("inf")
        band = (options.get("min_timestep", 0.0), options.get("max_timestep", 1000.0))
        rows = state.objective.rows(torch.tensor([0.0, 0.5, 0.999999]))
        times = state.objective.timesteps[rows]
        assert bool((times[1:] >= times[:-1]).all()) and band[0] <= float(times[0]) and float(times[-1]) <= band[1]
