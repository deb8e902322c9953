"""The plain types that families, training and drawing share: loaded models, conditionings, posteriors, a family's match."""

# B batch, C channels, H W latent size, T tokens, D width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Conditioning = dict[str, "Tensor"]  # what the denoiser needs beside latents and time; every tensor is batch-first
Residuals = Mapping[str, Sequence["Tensor"]]  # what ControlNets add, by place in the denoiser; every tensor is batch-first


@dataclass(frozen=True, kw_only=True)
class Match:
    """A family's claim on what it saw: score in (0, 1], the reasons, and what else the header shows."""

    score: float
    evidence: tuple[str, ...]
    variant: str | None = None
    prediction: str | None = None  # epsilon, v_prediction, flow; None: not in the header
    prediction_source: str | None = None
    alike: tuple[str, ...] = ()  # other families of which a file has the same names and sizes


@dataclass(frozen=True)
class Posterior:
    """The VAE's answer for a batch of images, in normalised latent space: mean and logvar (B, C, H, W).

    `logvar` None is a VAE without a posterior: the sample is the mean. `summed` gives a noise's sample in diffusers' own
    order of sums, where that is another in the last bits: sampled first, normalised after.
    """

    mean: Tensor
    logvar: Tensor | None
    summed: Callable[[Tensor], Tensor] | None = None

    def sample(self, noise: Tensor) -> Tensor:
        """mean + sigma * noise; the noise (B, C, H, W) is given, so that the caller owns the randomness."""
        if self.logvar is None:
            return self.mean
        if self.summed is not None:
            return self.summed(noise)
        return self.mean + (0.5 * self.logvar).exp() * noise


@dataclass(kw_only=True)
class Parts:
    """A loaded model. `prediction` is epsilon, v_prediction or flow, read from the scheduler's config, never from the family's name."""

    denoiser: nn.Module
    vae: nn.Module
    text_encoders: dict[str, nn.Module]  # component name (text_encoder, text_encoder_2) -> module
    tokenizers: dict[str, Any]  # component name (tokenizer, tokenizer_2) -> tokenizer
    scheduler_class: str  # the class name in diffusers
    scheduler_config: Mapping[str, Any]
    prediction: str
    source: Path
    latent_factor: int  # pixels a latent cell, from the VAE's config (8 in the published models, 4 in pocket)
    resolution: int  # pixels a side the model was made for, from its config: diffusers' default size
    latent_channels: int | None = None  # of this build, where it is not the published models' number
    config: Mapping[str, Any] = field(default_factory=dict)  # pipeline-level settings of model_index.json
    prompt_chunks: int = 1  # context lengths of CLIP that every prompt is encoded in; more than 1 where `Family.check_chunks` allows it
    warnings: tuple[str, ...] = ()  # assumptions made while loading, for the user
    changes: Any = field(default=None, repr=False, compare=False)  # registry.adapters.in_place.WeightChanges, once there are any

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype


def collate(states: Sequence[Conditioning]) -> Conditioning:
    """One batch; states of several lengths are padded at the end where they have a mask. Raises JobFailed where none does."""
    import torch

    batch: Conditioning = {}
    for key in states[0]:
        rows = [state[key] for state in states]
        lengths = {row.shape[1] for row in rows if row.ndim > 1}
        if len(lengths) > 1:
            if not any(row.dtype == torch.bool for row in states[0].values()):
                raise JobFailed(
                    f"Prompts of several lengths without a mask cannot share a batch ({key}: {sorted(lengths)}). Set batch_size=1."
                )
            rows = [_padded(row, max(lengths)) for row in rows]
        batch[key] = torch.cat(rows)
    return batch


def _padded(row: Tensor, length: int) -> Tensor:
    """(B, T, ...) -> (B, length, ...), zeros (False in a mask) behind."""
    import torch

    return torch.nn.functional.pad(row, (0, 0) * (row.ndim - 2) + (0, length - row.shape[1]))
