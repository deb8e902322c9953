"""Passes whose target keeps guidance: moved by the model's own prediction without a prompt, or by another image's target."""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.parts import Conditioning, collate
from train.choices import Choice
from train.loop.batches import Batch
from train.loop.step import Pass, TrainState

if TYPE_CHECKING:
    from torch import Tensor

MakePass = Callable[[TrainState, int, Batch, int], Pass]


def contrasted(make_pass: MakePass, contrast: Choice, unconditional: Conditioning | None) -> MakePass:
    """`make_pass` with its targets moved as the choice of CONTRASTS says; `unconditional` is the encoding of no prompt, for `guidance`."""

    def made(state: TrainState, step: int, batch: Batch, of: int) -> Pass:
        found = make_pass(state, step, batch, of)
        if contrast.name == "delta_fm":
            other = found.target.roll(1, 0)  # of another image of the pass
            return found if len(batch.items) == 1 else replace(found, target=contrast.bound(found.target, other))
        assert unconditional is not None
        return replace(found, target=contrast.bound(found.target, _without(state, found, unconditional).cpu()))

    return made


def _without(state: TrainState, found: Pass, unconditional: Conditioning) -> Tensor:
    """What the model predicts without a prompt now, the adapter included (B, C, H, W)."""
    import torch

    text = collate([unconditional] * len(found.batch.items))
    with torch.no_grad():
        return state.predict(state.model, found.noisy, found.timesteps, text, found.crops).float()
