"""One optimizer step: latents sampled, noised, predicted, compared with the target; gradients accumulated, clipped, applied."""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.family import Family
from registry.parts import Conditioning, Parts
from train.config import Precision, TrainConfig
from train.loop.encode import Latents, Prompts, TextInput, Texts
from train.loop.rng import draws_for, samples_at
from train.objective.targets import Objective
from train.optim_state import evaluation_weights, set_rate
from train.plan.base import precision_dtype
from train.rate import learning_rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module, Parameter


def denoiser_call(
    family: Family, parts: Parts, modules: Mapping[str, Module], *, side: int, guidance: float, clip_skip: int | None = None
) -> Module:
    """A module whose forward is the family's predict: what accelerate wraps, so that its hooks run at every call.

    It holds every trained module. Prompts in place of conditionings are encoded inside, by text encoders that are trained.
    """
    from torch import nn

    class DenoiserCall(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learning = nn.ModuleDict(modules)

        def forward(self, noisy: Tensor, timesteps: Tensor, text: TextInput, crops: Tensor | None = None) -> Tensor:
            encoded = family.encode_prompts(parts, text, clip_skip=clip_skip) if isinstance(text, list) else text
            conditioning = cast(encoded, noisy.device, noisy.dtype)
            complete = family.complete(parts, conditioning, height=side, width=side, guidance=guidance)
            if crops is not None and family.condition_on_crop is not None:
                complete = family.condition_on_crop(complete, crops)
            return family.predict(parts, noisy, timesteps, complete)

    return DenoiserCall()


def cast(conditioning: Conditioning, device: torch.device, dtype: torch.dtype) -> Conditioning:
    """The conditioning on the device, its real numbers in `dtype`."""
    return {key: value.to(device, dtype if value.is_floating_point() else None) for key, value in conditioning.items()}


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of one step. Tensors stay on the device until a window of them is read."""

    step: int  # from 1
    rate: float
    losses: Tensor  # (images of this process,), each image's own
    gradient_norm: Tensor  # () before clipping
    samples: tuple[int, ...]
    timesteps: Tensor  # (images of this process,) on the CPU


@dataclass(kw_only=True)
class TrainState:
    """The state of training: model, LoRA weights, optimizer, objective and encoded data."""

    config: TrainConfig
    family: Family
    parts: Parts
    accelerator: Any
    model: Any  # the denoiser call, wrapped by accelerate
    modules: Mapping[str, Any]  # trained, by component: the denoiser first
    weights: Sequence[tuple[str, Parameter]]  # of all modules; the optimizer has a group a module
    optimizer: Any
    objective: Objective
    latents: Latents
    texts: Texts | Prompts
    resolution: int  # pixels a side
    precision: Precision
    guidance: float  # embedded, where the family has it

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def step(self, step: int) -> StepMetrics:
        """One optimizer step, number `index` from 0; its draws depend on the number alone."""
        config, processes = self.config, self.accelerator.num_processes
        images = config.images_per_step * processes
        self.optimizer.zero_grad(set_to_none=True)
        rate = learning_rate(config, step)
        set_rate(self.optimizer, rate)
        own_losses, own_samples, own_times = [], [], []
        for turn in range(config.accumulate):
            first = (turn * processes + self.accelerator.process_index) * config.batch_size
            places = range(first, first + config.batch_size)
            samples = samples_at(config.seed, len(self.texts.index), [step * images + place for place in places])
            last = turn == config.accumulate - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                loss, timesteps = self._pass(step, places, of=images, samples=samples)
                self.accelerator.backward(loss.mean() / config.accumulate)
            own_losses.append(loss.detach())
            own_samples += samples
            own_times.append(timesteps)
        norm = self._clip()
        self.optimizer.step()
        import torch

        return StepMetrics(step + 1, rate, torch.cat(own_losses), norm, tuple(own_samples), torch.cat(own_times))

    def _pass(self, step: int, places: Sequence[int], *, of: int, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(loss of each image (B,), timesteps (B,) on the CPU) of one forward."""
        draws = draws_for(self.config.seed, step, places, of=of, shape=self.latents.shape)
        latents = self.latents.rows(samples).sample(draws.posterior)  # (B, C, H, W)
        rows = self.objective.rows(draws.quantiles)
        noisy, target = self.objective.noisy_and_target(latents, draws.noise, rows)
        times, crops = self.objective.timesteps[rows], self.latents.crops_of(samples)
        prediction = self.predict(self.model, noisy, times, self.texts.rows(samples), crops)
        return self.objective.losses(prediction, target.to(self.device, non_blocking=True), rows), times

    def predict(self, model: Any, noisy: Tensor, timesteps: Tensor, text: TextInput, crops: Tensor | None = None) -> Tensor:
        """The denoiser's prediction (B, C, H, W) for noisy latents; the arguments are on the CPU."""
        import torch

        dtype = precision_dtype(self.precision)
        with self._autocast():
            prediction: Tensor = model(noisy.to(self.device, dtype), timesteps.to(self.device, torch.float32), text, crops)
        return prediction

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Every module in eval mode, with the weights that the optimizer means to be used."""
        for module in self.modules.values():
            module.train(False)
        try:
            with evaluation_weights(self.optimizer, [weight for _, weight in self.weights]):
                yield
        finally:
            for module in self.modules.values():
                module.train(True)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Half precision computes LoRA products in half precision too; the weights and their gradients stay fp32."""
        import torch

        if self.precision is Precision.fp32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, precision_dtype(self.precision))

    def _clip(self) -> Tensor:
        """Gradient norm over all LoRA weights, before clipping to optim.clip."""
        from math import inf

        weights = [weight for _, weight in self.weights]
        norm: Tensor = self.accelerator.clip_grad_norm_(weights, self.config.optim.clip or inf)
        return norm.detach()
