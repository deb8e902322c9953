"""A pass on pairs that were voted on: both images at one noise and timestep, the reference's errors beside the model's."""

# B pairs of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from train.loop.batches import Batch
from train.loop.encode import Latents
from train.loop.step import Pass, TrainState, denoising_pass
from train.lora import adapter_disabled
from train.objective.preference import Preference, margins, preference_losses

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(kw_only=True)
class Reference:
    """The model that the adapter is held to: the base with the adapter off, or with the weights that it began with."""

    state: TrainState
    began: Sequence[Tensor] | None  # the adapter's weights as the run began; None: off
    _depth: int = field(default=0, init=False)

    @contextmanager
    def active(self) -> Iterator[None]:
        """The reference in place of the model, inside the block; blocks may be nested. Nothing is copied, so that its bits are the same."""
        self._depth += 1
        try:
            if self._depth > 1:
                yield
            elif self.began is None:
                with adapter_disabled(self.state.modules):
                    yield
            else:
                with exchanged([weight for _, weight in self.state.weights], self.began):
                    yield
        finally:
            self._depth -= 1


@contextmanager
def exchanged(weights: Sequence[torch.nn.Parameter], others: Sequence[Tensor]) -> Iterator[None]:
    """Other values in place of the weights'. No gradient may be taken across the end of the block."""
    own = [weight.data for weight in weights]
    for weight, other in zip(weights, others, strict=True):
        weight.data = other
    try:
        yield
    finally:
        for weight, value in zip(weights, own, strict=True):
            weight.data = value


@dataclass(frozen=True, kw_only=True)
class PreferencePass(Pass):
    """A pass of preferred images and, behind them, the rejected ones: noisy, target, rows, timesteps, text and crops are of 2B."""

    reference: Tensor  # (2B,) the reference's errors, on the device


@dataclass(frozen=True, kw_only=True)
class PreferenceRun:
    """Learning from votes: the rejected images of the items, and the reference."""

    preference: Preference
    rejected: Latents  # of the items, in their order
    reference: Reference

    def make_pass(self, state: TrainState, step: int, batch: Batch, of: int) -> PreferencePass:
        """The pass of these places of a step. Both images of a pair get the same noise, timestep, part of the image and prompt."""
        import torch

        own = denoising_pass(state, step, batch, of)
        other = denoising_pass(state, step, batch, of, latents=self.rejected)
        noisy, target = torch.cat([own.noisy, other.noisy]), torch.cat([own.target, other.target])
        rows, timesteps = own.rows.repeat(2), own.timesteps.repeat(2)
        images = [state.items[item].image for item in batch.items]
        text = state.texts.drawn(images * 2, step, batch.places * 2)
        crops = None if own.crops is None or other.crops is None else torch.cat([own.crops, other.crops])
        with torch.no_grad(), self.reference.active():
            prediction = state.predict(state.model, noisy, timesteps, text, crops)
            errors = state.objective.errors(prediction, target.to(state.device))
        return PreferencePass(
            step=step,
            batch=batch,
            noisy=noisy,
            target=target,
            rows=rows,
            timesteps=timesteps,
            text=text,
            crops=crops,
            reference=errors,
        )

    def losses(self, state: TrainState, made: Pass, prediction: Tensor) -> Tensor:
        """The loss of each pair (B,). The weighting's weights are inside the margin, as T w(lambda) of the paper."""
        assert isinstance(made, PreferencePass)
        own = state.objective.errors(prediction, made.target.to(state.device, non_blocking=True))
        weights = state.objective.weights[made.rows].to(own).chunk(2)[0]
        found = preference_losses(weights * margins(own, made.reference, beta=self.preference.beta))
        if self.preference.supervised:
            found = found + self.preference.supervised * weights * own.chunk(2)[0]
        return found
