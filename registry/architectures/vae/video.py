"""Qwen's video VAE on single images: one frame in, one frame out, latents normalised by each channel's own mean and deviation."""

# B batch, C channels, h w pixels, H W latent size

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.parts import Parts, Posterior

if TYPE_CHECKING:
    from torch import Tensor


def encode_images(parts: Parts, pixels: Tensor) -> Posterior:
    """Posterior of pixels (B, 3, h, w) in [-1, 1]: normalised latents (B, C, h/f, w/f)."""
    return encode_frame(parts.vae, pixels)


def decode(parts: Parts, latents: Tensor) -> Tensor:
    """Pixels (B, 3, h, w) in [-1, 1] of normalised latents (B, C, H, W)."""
    return decode_frame(parts.vae, latents)


def encode_frame(vae: Any, pixels: Tensor) -> Posterior:
    """Posterior of pixels (B, 3, h, w) in [-1, 1]: mean and logvar (B, C, H, W), normalised."""
    posterior = vae.encode(pixels.to(vae.device, vae.dtype).unsqueeze(2)).latent_dist  # (B, 3, 1, h, w)
    middle, spread = _per_channel(vae)

    def normalised(raw: Tensor) -> Tensor:
        return (raw[:, :, 0] - middle) * (1.0 / spread)

    return Posterior(
        normalised(posterior.mean),
        posterior.logvar[:, :, 0] - 2 * spread.log(),
        summed=lambda noise: normalised(posterior.mean + posterior.std * noise.unsqueeze(2)),
    )


def decode_frame(vae: Any, latents: Tensor) -> Tensor:
    """Pixels (B, 3, h, w) in [-1, 1] (the VAE clamps) of normalised latents (B, C, H, W)."""
    middle, spread = _per_channel(vae)
    raw = latents.to(vae.device, vae.dtype) / (1.0 / spread) + middle  # as the pipeline divides, or bf16 rounds otherwise
    return vae.decode(raw.unsqueeze(2), return_dict=False)[0][:, :, 0]  # type: ignore[no-any-return]  # diffusers is untyped


def _per_channel(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel (1, C, 1, 1)."""
    import torch

    values = (
        torch.tensor(value).view(1, -1, 1, 1).to(vae.device, vae.dtype) for value in (vae.config.latents_mean, vae.config.latents_std)
    )
    middle, spread = values
    return middle, spread
