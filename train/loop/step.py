"""One optimizer step: latents sampled, noised, predicted, compared with the target; gradients accumulated, clipped, applied."""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.family import Family
from registry.parts import Conditioning, Parts
from registry.swapping.activations import ActivationOffload
from registry.swapping.swap import BlockSwap
from train.config import Precision, TrainConfig
from train.data.items import Item
from train.loop.batches import Batch, Order
from train.loop.drawn_texts import TrainingTexts
from train.loop.ema import Ema
from train.loop.encode import Latents, TextInput
from train.loop.rng import drawn, draws_for, generators_of
from train.lora import adapter_disabled
from train.objective.masked import loss_weights
from train.objective.targets import Objective
from train.optim_state import evaluation_weights, set_rate
from train.plan.base import precision_dtype
from train.rate import learning_rate
from train.tokens.vectors import Vectors
from train.training_adapter import FusedAdapter

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module, Parameter

    from train.adapters.flat import FlatWeights
    from train.adapters.stacks import Stack


def denoiser_call(
    family: Family,
    parts: Parts,
    modules: Mapping[str, Module],
    *,
    guidance: float,
    clip_skip: int | None = None,
    vectors: Vectors | None = None,
) -> Module:
    """A module whose forward is the family's predict: what accelerate wraps, so that its hooks run at every call.

    It holds every trained module. Prompts in place of conditionings are encoded inside where text encoders or vectors are trained.
    """
    from torch import nn

    class DenoiserCall(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learning = nn.ModuleDict(modules)
            self.rows = nn.ParameterList(vectors.rows.values() if vectors else ())

        def forward(self, noisy: Tensor, timesteps: Tensor, text: TextInput, crops: Tensor | None = None) -> Tensor:
            encoded = family.encode_prompts(parts, text, clip_skip=clip_skip) if isinstance(text, list) else text
            conditioning = cast(encoded, noisy.device, noisy.dtype)
            height, width = (side * parts.latent_factor for side in noisy.shape[2:])
            complete = family.complete(parts, conditioning, height=height, width=width, guidance=guidance)
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
    items: tuple[int, ...]
    timesteps: Tensor  # (images of this process,) on the CPU


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward of the denoiser: what goes in, and what should come out. Tensors are on the CPU."""

    step: int  # from 0
    batch: Batch
    noisy: Tensor  # (B, C, H, W)
    target: Tensor  # (B, C, H, W)
    rows: Tensor  # (B,) of the objective's timesteps
    timesteps: Tensor  # (B,)
    text: TextInput
    crops: Tensor | None  # (B, 4)
    weights: Tensor | None = None  # (B, 1, H, W) of the loss, where images have masks


Extra = Callable[["TrainState", Pass, "Tensor"], "Tensor"]
"""(state, pass, prediction (B, C, H, W) on the device) -> a loss of each image (B,), which is added to its own."""


def denoising_pass(state: TrainState, step: int, batch: Batch, of: int, *, latents: Latents | None = None) -> Pass:
    """The batch's images noised, and the target of their noise. `of`: images of the step; `latents`: others than the items' own."""
    seed, items, every = state.config.seed, batch.items, latents or state.latents
    views = [drawn(len(state.items[item].views), "view", seed, step, place) for item, place in zip(items, batch.places, strict=True)]
    draws = draws_for(seed, step, batch.places, of=of, shape=every.shapes[items[0]])
    encoded = every.view(items, views)
    clean = encoded.posterior.sample(draws.posterior)  # (B, C, H, W)
    rows = state.objective.rows(draws.quantiles, clean.shape[2:])
    noises = state.objective.noises(clean, draws.noise, lambda name: generators_of(f"noise {name}", seed, step, batch.places))
    noisy, target = state.objective.noisy_and_target(clean, noises.learned, rows, added=noises.added)
    return Pass(
        step=step,
        batch=batch,
        noisy=noisy,
        target=target,
        rows=rows,
        timesteps=state.objective.timesteps[rows],
        text=state.texts.drawn([state.items[item].image for item in items], step, batch.places),
        crops=encoded.crops,
        weights=mask_weights(state.config, encoded.kept),
    )


def denoising_losses(state: TrainState, made: Pass, prediction: Tensor) -> Tensor:
    """The objective's loss of each image (B,)."""
    weights = None if made.weights is None else made.weights.to(state.device)
    return state.objective.losses(prediction, made.target.to(state.device, non_blocking=True), made.rows, weights)


def mask_weights(config: TrainConfig, kept: Tensor | None) -> Tensor | None:
    """The weights (B, 1, H, W) of the loss by what masks keep of each latent."""
    if kept is None:
        return None
    return loss_weights(kept, unmasked=config.data.unmasked_weight, normalize=config.data.normalize_masked_loss)


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
    items: Sequence[Item]  # that are trained on
    order: Order  # of the items
    latents: Latents  # of the items
    texts: TrainingTexts  # of the images
    resolution: int  # pixels a side, the largest
    precision: Precision
    guidance: float  # embedded, where the family has it
    ema: Ema | None = None  # of the weights
    fused: FusedAdapter | None = None  # a training adapter in the base's weights
    vectors: Vectors | None = None  # of new tokens, among the weights too
    swap: BlockSwap | None = None  # of the denoiser's blocks
    offload: ActivationOffload | None = None  # of what passes with gradients keep
    make_pass: Callable[[TrainState, int, Batch, int], Pass] = denoising_pass
    pass_losses: Extra = denoising_losses  # of each item of a pass
    extras: Sequence[Extra] = ()  # losses beside the objective's
    flat: FlatWeights | None = None  # the weights in one buffer
    stacks: Sequence[Stack] = ()  # of layers whose weights are formed at once
    as_began: Callable[[], contextlib.AbstractContextManager[None]] | None = None  # what the run is compared with; None: the base
    after_pass: Callable[[], None] | None = None  # of a measurement, which may take minutes

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def step(self, step: int) -> StepMetrics:
        """One optimizer step, number `index` from 0; its draws depend on the number alone.

        Its loss is the mean over the images of all passes and processes, each by its weight: sum(weight x loss) / images.
        """
        import torch

        from train.adapters.stacks import forming

        config, processes = self.config, self.accelerator.num_processes
        passes = self.order.step(step)
        of = sum(len(batch.items) for batches in passes for batch in batches)
        self._zero_gradients()
        rate = learning_rate(config, step)
        set_rate(self.optimizer, rate)
        own_losses, own_items, own_times = [], [], []
        for turn, batches in enumerate(passes):
            batch = batches[self.accelerator.process_index]
            last = turn == config.accumulate - 1
            with forming(self.stacks), contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                losses, timesteps = self._pass(step, batch, of=of)
                share = of / (len(batch.items) * processes)  # accelerate averages over the processes
                self.accelerator.backward(self._weighted(losses, batch).mean() / share)
            if self.flat is not None:
                self.flat.collect()
            own_losses.append(losses.detach())
            own_items += batch.items
            own_times.append(timesteps)
        if self.vectors is not None:
            self.vectors.leave_gradients(step)
        norm = self._clip()
        self.optimizer.step()
        if self.vectors is not None:
            self.vectors.limit_norms(step)
        if self.ema is not None:
            self.ema.update([weight for _, weight in self.weights], step)
        return StepMetrics(step + 1, rate, torch.cat(own_losses), norm, tuple(own_items), torch.cat(own_times))

    def _pass(self, step: int, batch: Batch, *, of: int) -> tuple[Tensor, Tensor]:
        """(loss of each image (B,), timesteps (B,) on the CPU) of one forward."""
        made = self.make_pass(self, step, batch, of)
        prediction = self.predict(self.model, made.noisy, made.timesteps, made.text, made.crops)
        losses = self.pass_losses(self, made, prediction)
        for extra in self.extras:
            losses = losses + extra(self, made, prediction)
        return losses, made.timesteps[: len(batch.items)]

    def _weighted(self, losses: Tensor, batch: Batch) -> Tensor:
        """The losses (B,), each by its image's weight."""
        weights = [self.items[item].weight for item in batch.items]
        return losses if all(weight == 1.0 for weight in weights) else losses * losses.new_tensor(weights)

    def predict(self, model: Any, noisy: Tensor, timesteps: Tensor, text: TextInput, crops: Tensor | None = None) -> Tensor:
        """The denoiser's prediction (B, C, H, W) for noisy latents; the arguments are on the CPU."""
        import torch

        dtype = precision_dtype(self.precision)
        with self._autocast(), self._offloading():
            prediction: Tensor = model(noisy.to(self.device, dtype), timesteps.to(self.device, torch.float32), text, crops)
        return prediction

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Every module in eval mode, on the base without a training adapter.

        The weights are those to use: the moving averages, or those that the optimizer means.
        """
        for module in self.modules.values():
            module.train(False)
        try:
            weights, averages = [weight for _, weight in self.weights], None if self.ema is None else self.ema.averages
            with evaluation_weights(self.optimizer, weights, averages), self.without_training_adapter():
                yield
        finally:
            for module in self.modules.values():
                module.train(True)

    def baseline(self) -> contextlib.AbstractContextManager[None]:
        """What the measurements are compared with, inside the block: the base, or the model as the run began."""
        return self.as_began() if self.as_began is not None else adapter_disabled(self.modules)

    def without_training_adapter(self) -> contextlib.AbstractContextManager[None]:
        """The base as it is drawn with: a training adapter is out of its weights inside the block."""
        if self.fused is None:
            return contextlib.nullcontext()
        return self.fused.out() if self.swap is None else self.fused.out(before=self.swap.wait)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Half precision computes LoRA products in half precision too; the weights and their gradients stay fp32."""
        import torch

        if self.precision is Precision.fp32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, precision_dtype(self.precision))

    def _offloading(self) -> contextlib.AbstractContextManager[None]:
        """Main memory for what a pass with gradients keeps, where the settings say so."""
        import torch

        return self.offload.keeping() if self.offload is not None and torch.is_grad_enabled() else contextlib.nullcontext()

    def _zero_gradients(self) -> None:
        if self.flat is not None:
            self.flat.zero()
        else:
            self.optimizer.zero_grad(set_to_none=True)

    def _clip(self) -> Tensor:
        """Gradient norm over all LoRA weights, before clipping to optim.clip."""
        from math import inf

        if self.flat is not None:
            return self.flat.clip(self.accelerator, self.config.optim.clip).detach()
        weights = [weight for _, weight in self.weights]
        norm: Tensor = self.accelerator.clip_grad_norm_(weights, self.config.optim.clip or inf)
        return norm.detach()
