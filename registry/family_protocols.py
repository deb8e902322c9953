"""Signatures of a family's functions, as a type checker sees them. Each docstring is the contract of one field of Family or Control."""

# B batch, C channels, H W latent size, h w pixels, f latent factor, T tokens, D width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from registry.parts import Conditioning, Parts, Posterior, Residuals
from registry.quantised.layers import Quantisation

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from registry.architectures.text.weighted import WeightedText


class Load(Protocol):
    def __call__(
        self,
        path: Path | str,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        base_config: Path | str | None = None,
        prediction: str | None = None,
        quantised: Quantisation | None = None,
    ) -> Parts:
        """The Parts of a diffusers folder or a single file, without network access, frozen and in eval mode.

        `prediction` is one of the family's `predictions` and overrides configs and file marks; None: no override. On device "meta" no
        weight is read: a skeleton with tokenizers and configs. `quantised`: layers that are quantised as they are read. Raises BadFile, and
        Refused naming `base_config` where a single file needs component configs or tokenizers that are not bundled.
        """
        ...


class EncodePrompts(Protocol):
    def __call__(self, parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
        """Batch-first states (B, T, D) of the prompts, and what else they give. Raises Refused for a `clip_skip` that has no meaning here.

        Negative prompts are encoded by `Family.negatives`.
        """
        ...


class EncodeWeighted(Protocol):
    def __call__(self, parts: Parts, texts: Sequence[WeightedText], *, dialect: str, clip_skip: int | None = None) -> Conditioning:
        """The Conditioning (B, N T, D) of the weighted texts that one prompt has by step, in as many chunks as the longest needs.

        `dialect` is a name of registry.architectures.text.weighted.EMPHASIS. Raises Refused beyond its most chunks.
        """
        ...


class EncodeUnconditional(Protocol):
    def __call__(self, parts: Parts, count: int) -> Conditioning:
        """The Conditioning of no negative prompt, `count` rows, as the stock diffusers pipeline has it.

        SD 1 encodes "", SDXL takes zeros; no layer is ever skipped.
        """
        ...


class EncodeNegatives(Protocol):
    def __call__(self, parts: Parts, negatives: Sequence[str]) -> Conditioning:
        """The Conditioning of negative prompts, where the pipeline encodes them otherwise than prompts (without a system prompt)."""
        ...


class CountTokens(Protocol):
    def __call__(self, parts: Parts, prompt: str) -> tuple[int, int]:
        """(tokens the prompt needs with its special tokens, tokens that fit). What is more is truncated, and the caller reports it."""
        ...


class EncodeImages(Protocol):
    def __call__(self, parts: Parts, pixels: Tensor) -> Posterior:
        """The Posterior of normalised latents (B, C, h/f, w/f) of pixels (B, 3, h, w) in [-1, 1]."""
        ...


class Decode(Protocol):
    def __call__(self, parts: Parts, latents: Tensor) -> Tensor:
        """Pixels (B, 3, h, w), nominally in [-1, 1] and not clamped, of normalised latents (B, C, H, W)."""
        ...


class Complete(Protocol):
    def __call__(self, parts: Parts, conditioning: Conditioning, *, height: int, width: int, guidance: float) -> Conditioning:
        """The Conditioning with what image size (pixels) and an embedded guidance scale add; unchanged where a family takes neither.

        SDXL's original size and crop are (height, width) and (0, 0).
        """
        ...


class ConditionOnCrop(Protocol):
    def __call__(self, conditioning: Conditioning, crops: Tensor) -> Conditioning:
        """The complete Conditioning of training images, with each one's own size and crop in place of those of an image that is drawn.

        `crops` (B, 4): height and width of the file upright, top and left of the crop in the scaled image, all in pixels.
        """
        ...


class Predict(Protocol):
    def __call__(
        self, parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None
    ) -> Tensor:
        """One denoiser call: epsilon, v or the velocity noise - x0, like `noisy` (B, C, H, W).

        `timesteps` (B,) in 0..1000, one per sample. `control` has the keys that the family's own ControlNets return; a family without
        ControlNets raises Refused.
        """
        ...


class SetTimesteps(Protocol):
    def __call__(self, scheduler: Any, steps: int, *, height: int, width: int) -> None:
        """Sets the scheduler's timesteps as the pipeline does for an image of height x width pixels (sigmas, mu)."""
        ...


class Mu(Protocol):
    def __call__(self, config: Mapping[str, Any], *, height: int, width: int, steps: int) -> float | None:
        """mu of the resolution-dependent timestep shift for height x width pixels, from a scheduler's config; None: there is none."""
        ...


class UsesGuidance(Protocol):
    def __call__(self, parts: Parts, guidance: float, *, negative: bool) -> bool:
        """Whether the pipeline makes an unconditional pass at this scale, with (`negative` True) or without a negative prompt.

        False wherever the family's `classifier_free` is False.
        """
        ...


class Guide(Protocol):
    def __call__(self, conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
        """The guided prediction of the two (B, C, H, W)."""
        ...


class LoraState(Protocol):
    def __call__(self, path: Path | str, parts: Parts) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(state dict in diffusers' peft keys `<component>.<module>.lora_A.weight`, {"network_alphas": ..., "metadata": ...}).

        Raises BadFile where nothing in the file can be read.
        """
        ...


class LoadControl(Protocol):
    def __call__(self, path: Path | str, parts: Parts, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
        """The ControlNet of a diffusers folder or a single file, frozen and in eval mode, without network access.

        On device "meta" no weight is read. Raises FamilyMismatch for another family's, Refused for another build than `parts`.
        """
        ...


class EncodeHint(Protocol):
    def __call__(self, parts: Parts, net: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """The hint (1, ...) as the net takes it, of pixels (1, 3, h, w) in [0, 1].

        Where the pipeline draws from the image's generator for it (a sample of the VAE's posterior), so does this.
        """
        ...


class ControlResiduals(Protocol):
    def __call__(
        self,
        parts: Parts,
        net: Any,
        noisy: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        hint: Tensor,
        *,
        mode: int | None = None,
    ) -> Residuals:
        """The Residuals for `predict` at a scale of 1, from the inputs of `predict`, the hint (B, ...) and a union net's mode."""
        ...


class ScaledResiduals(Protocol):
    def __call__(
        self,
        parts: Parts,
        net: Any,
        noisy: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        hint: Tensor,
        *,
        mode: int | None = None,
        scale: float,
    ) -> Residuals:
        """The Residuals for `predict`, scaled inside the net."""
        ...
