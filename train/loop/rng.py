"""All randomness of training, by count: what an image gets is a function of (seed, step, its place in the step), and of nothing else.

So a run that was stopped goes on with the same draws, the order of workers plays no part, and passes that are accumulated get
what one big batch would get. Draws are made on the CPU in fp32, whatever the device.
"""

# B images of one pass, N images of the set, G images of one step

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything with a stable repr."""
    digest = hashlib.blake2b("\x1f".join(map(repr, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@lru_cache(maxsize=4)
def shuffled(parts: tuple[object, ...], count: int) -> tuple[int, ...]:
    """0 .. count - 1 in an order that depends on the parts alone."""
    import torch

    generator = torch.Generator().manual_seed(seed_of(*parts))
    return tuple(torch.randperm(count, generator=generator).tolist())


def drawn(count: int, *parts: object) -> int:
    """One of 0 .. count - 1, equally probable, that depends on the parts alone."""
    return seed_of(*parts) % count


@dataclass(frozen=True)
class Draws:
    """What the images of one pass get."""

    quantiles: Tensor  # (B,) in [0, 1), one stratum of the step each; the timestep distribution maps them
    posterior: Tensor  # (B, C, H, W) standard normal, picks the latent from its posterior
    noise: Tensor  # (B, C, H, W) standard normal


def draws_for(seed: int, step: int, places: Sequence[int], *, of: int, shape: Sequence[int]) -> Draws:
    """Draws for the images at `places` of 0..of-1 in a step; `shape` is one latent's (C, H, W).

    Quantiles are stratified over the step (low-discrepancy timesteps, Kingma et al. 2021, appendix I.1): each is uniform,
    together they cover the range evenly.
    """
    import torch

    generator = torch.Generator()
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for place in places:
        generator.manual_seed(seed_of("noise", seed, step, place))
        inside = torch.rand((), generator=generator, dtype=torch.float64)
        rows.append(((place + inside) / of, torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)))
    quantiles, posterior, noise = (torch.stack(column) for column in zip(*rows, strict=True))
    return Draws(quantiles, posterior, noise)
