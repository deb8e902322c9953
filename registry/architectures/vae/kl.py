"""AutoencoderKL in normalised latent space: (z - shift) * scale, both from the VAE's own config."""

# B batch, C channels, h w pixels, H W latent size

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from registry.parts import Parts, Posterior

if TYPE_CHECKING:
    from torch import Tensor


def encode_images(parts: Parts, pixels: Tensor) -> Posterior:
    """Posterior of pixels (B, 3, h, w) in [-1, 1]: normalised latents (B, C, h/f, w/f)."""
    return encode_kl(parts.vae, pixels)


def decode(parts: Parts, latents: Tensor) -> Tensor:
    """Pixels (B, 3, h, w) of normalised latents (B, C, H, W)."""
    return decode_kl(parts.vae, latents)


def encode_kl(vae: Any, pixels: Tensor) -> Posterior:
    """Posterior of pixels (B, 3, h, w) in [-1, 1]: mean and logvar (B, C, H, W), normalised."""
    posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    logvar, scale = posterior.logvar, float(vae.config.scaling_factor)
    normalised, shrink = _normalisation(vae)
    return Posterior(
        normalised(posterior.mean),
        logvar + 2 * math.log(scale) - shrink,
        summed=lambda noise: normalised(posterior.mean + posterior.std * noise),
    )


def _normalisation(vae: Any) -> tuple[Callable[[Tensor], Tensor], Any]:
    """What makes the VAE's own latents normalised ones, and the log variance that each channel loses by it beside the scale's."""
    scale, shift = float(vae.config.scaling_factor), vae.config.shift_factor or 0.0
    if vae.config.latents_mean is None or vae.config.latents_std is None:
        return lambda latents: (latents - shift) * scale, 0.0
    middle, spread = _per_channel(vae)
    return lambda latents: (latents - middle) * scale / spread, 2 * spread.log()


def decode_kl(vae: Any, latents: Tensor) -> Tensor:
    """Pixels (B, 3, h, w), nominally in [-1, 1], of normalised latents (B, C, H, W)."""
    latents = latents.to(vae.device, vae.dtype)
    if vae.config.latents_mean is not None and vae.config.latents_std is not None:
        middle, spread = _per_channel(vae)
        latents = latents * spread / vae.config.scaling_factor + middle
    elif vae.config.shift_factor is not None:
        latents = latents / vae.config.scaling_factor + vae.config.shift_factor
    else:
        latents = latents / vae.config.scaling_factor
    return vae.decode(latents, return_dict=False)[0]  # type: ignore[no-any-return]  # diffusers is untyped


def _per_channel(vae: Any) -> tuple[Tensor, Tensor]:
    """The VAE's own mean and deviation of each channel, (1, C, 1, 1), where its config has them (some SDXL VAEs)."""
    import torch

    values = (
        torch.tensor(value).view(1, -1, 1, 1).to(vae.device, vae.dtype) for value in (vae.config.latents_mean, vae.config.latents_std)
    )
    middle, spread = values
    return middle, spread
