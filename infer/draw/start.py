"""Initial latents for image-to-image, inpainting and a second pass.

The recipe is that of diffusers' image-to-image and inpainting pipelines, for every family: the VAE's posterior is sampled, then
the noise is drawn, both from the image's generator; the image is noised to the first timestep of a shortened walk.
"""

# B rows, C channels, h w pixels, H W latent size

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.family import Family
from registry.parts import Parts

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a drawing begins with, an image or clean latents of its size, and how much of it is redrawn."""

    pixels: Tensor | None = None  # (1, 3, h, w) in [-1, 1]; None: `latents`
    latents: Tensor | None = None  # (1, C, H, W)
    strength: float  # in (0, 1]: 1 walks all steps
    walked: int | None = None  # the last steps, which are walked; None: as many as the family's pipeline takes of the strength
    mask: Tensor | None = None  # (1, 1, h, w) of 0 and 1; 1 is redrawn, 0 stays. Of an image alone


@dataclass(frozen=True, kw_only=True)
class InpaintBackground:
    """What inpainting keeps outside the mask: the init image's latents and noise (1, C, H, W), and the mask (1, 1, H, W)."""

    clean: Tensor
    noise: Tensor
    mask: Tensor

    def blend(self, latents: Tensor, scheduler: Any, timestep: Tensor | None) -> Tensor:
        """`latents` where the mask is 1, elsewhere the init image noised to the next `timestep` (1,); None after the last: clean."""
        background = self.clean if timestep is None else noised(scheduler, self.clean, self.noise, timestep)
        return (1 - self.mask) * background + self.mask * latents


def first_step(family: Family, scheduler: Any, steps: int, strength: float, *, walked: int | None = None) -> int:
    """The index in `scheduler.timesteps` at which a start begins: by its strength as the family's pipeline counts, or by what is walked."""
    first = family.start_step(steps, strength) if walked is None else max(0, steps - walked)
    return first * int(getattr(scheduler, "order", 1))


def check_strength(family: Family, *, steps: int, strength: float) -> None:
    """Refuse a strength that leaves no step to draw."""
    if not 0.0 < strength <= 1.0:
        raise Refused(f"strength is {strength}. Expected more than 0 and at most 1: the share of the steps that redraws the image.")
    if family.start_step(steps, strength) >= steps:
        raise Refused(
            f"strength {strength:g} of {steps} steps is less than one step. Give more steps, or a strength of at least {1 / steps:.3g}."
        )


def start_latents(
    family: Family, parts: Parts, start: Start, scheduler: Any, timesteps: Tensor, generator: torch.Generator, noise: Callable[[], Tensor]
) -> tuple[Tensor, InpaintBackground | None]:
    """The initial latents (1, C, H, W) for `timesteps`, and the background of a mask. `noise` draws from the generator too."""
    if start.pixels is not None:
        clean = _sample(family, parts, start.pixels, generator)
    else:
        assert start.latents is not None and start.mask is None
        clean = start.latents
    fresh = noise()
    clean = clean.to(fresh.device, fresh.dtype)
    if start.mask is not None:
        clean = clean.contiguous()  # the inpainting pipelines copy it, the image-to-image ones do not: strides choose convolutions
    pure_noise = start.mask is not None and start.strength == 1.0  # the inpainting pipelines start from pure noise then
    latents = fresh * getattr(scheduler, "init_noise_sigma", 1.0) if pure_noise else noised(scheduler, clean, fresh, timesteps[:1])
    if start.mask is None or start.pixels is None:
        return latents, None
    _sample(family, parts, start.pixels * (start.mask < 0.5), generator)  # for the generator: the pipelines do so, and do not use it
    return latents, InpaintBackground(clean=clean, noise=fresh, mask=latent_mask(start.mask, like=clean))


def latent_mask(mask: Tensor, *, like: Tensor) -> Tensor:
    """The mask (1, 1, h, w) at the size of latents (1, C, H, W): the first pixel of each cell, as in diffusers."""
    import torch

    small = torch.nn.functional.interpolate(mask, size=like.shape[-2:])
    return small.to(like.device, like.dtype)


def noised(scheduler: Any, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """`clean` with the noise of a timestep (1,) of the scheduler's own table."""
    if hasattr(scheduler, "scale_noise"):
        mixed: Tensor = scheduler.scale_noise(clean, timestep, noise)
    else:
        mixed = scheduler.add_noise(clean, noise, timestep)
    return mixed


def _sample(family: Family, parts: Parts, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A sample of the VAE's posterior, its noise from the image's generator."""
    import torch

    posterior = family.encode_images(parts, pixels.to(parts.device, parts.dtype))
    if posterior.logvar is None:
        return posterior.mean
    drawn = torch.randn(posterior.mean.shape, generator=generator, dtype=posterior.mean.dtype)
    return posterior.sample(drawn.to(posterior.mean.device))
