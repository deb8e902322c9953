"""Latents decoded tile by tile: less memory for a large image, since what a decoder makes in passing grows with the area.

Tiles are squares of one size, spread evenly, and overlap by a quarter of their side or more; the pixels of an overlap are a weighted mean,
whose weights fall in a straight line towards a tile's edge. A decoder with attention or group norms sees a tile and not the image, so the
result differs a little from the whole decoding, most in plain areas. diffusers' `enable_vae_tiling` has the same overlap, but cuts its
last row and column as narrow as what is left, and takes the VAE's own `sample_size` for its tiles.
"""

# C channels, H W latent size, h w pixels

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from registry.errors import Refused
from registry.parts import Parts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OVERLAP = 0.25  # of a tile's side at least
LEAST_CELLS = 8  # latent cells a side: a smaller tile is nearly all overlap


def least_side(parts: Parts) -> int:
    """The smallest side of a tile, in pixels."""
    return LEAST_CELLS * parts.latent_factor


def check_tile(parts: Parts, side: int, *, setting: str = "vae_tiling") -> None:
    """Refuse a tile that is no whole number of latent cells, or too few of them; `setting` is its name."""
    least, cell = least_side(parts), parts.latent_factor
    if side < least or side % cell:
        raise Refused(f"{setting} is {side}. Expected the side of a tile in pixels, a multiple of {cell} from {least} on: 512 is usual.")


def decode_tiled(decode: Callable[[Parts, Tensor], Tensor], parts: Parts, latents: Tensor, side: int | None) -> Tensor:
    """Pixels (1, 3, h, w) of normalised latents (1, C, H, W), in tiles of `side` pixels where the image is larger; None: at once."""
    import torch

    factor = parts.latent_factor
    height, width = latents.shape[-2:]
    if side is None or max(height, width) * factor <= side:
        return decode(parts, latents)
    cells = side // factor
    total = weights = None
    for top in starts(height, cells):
        for left in starts(width, cells):
            tile = decode(parts, latents[..., top : top + cells, left : left + cells])
            if total is None or weights is None:
                size = (*tile.shape[:-2], height * factor, width * factor)
                total = torch.zeros(size, dtype=torch.float32, device=tile.device)
                weights = torch.zeros((1, 1, *size[-2:]), dtype=torch.float32, device=tile.device)
            weight = _weights(tile, (top > 0, top + cells < height), (left > 0, left + cells < width), int(side * OVERLAP))
            place = (..., slice(top * factor, (top + cells) * factor), slice(left * factor, (left + cells) * factor))
            total[place] += tile * weight
            weights[place] += weight
            dtype = tile.dtype
    assert total is not None and weights is not None
    return (total / weights).to(dtype)


def starts(length: int, cells: int) -> list[int]:
    """Where tiles of `cells` begin on a side of `length` cells: as few as overlap enough, evenly spread."""
    if length <= cells:
        return [0]
    stride = cells - max(1, int(cells * OVERLAP))
    count = -(-(length - cells) // stride) + 1
    return [round(index * (length - cells) / (count - 1)) for index in range(count)]


def _weights(tile: Tensor, rows: tuple[bool, bool], columns: tuple[bool, bool], overlap: int) -> Tensor:
    """(1, 1, h, w): 1 inside, falling towards each edge that has another tile behind it."""
    import torch

    vertical = _ramp(tile.shape[-2], *rows, overlap).to(tile.device)
    horizontal = _ramp(tile.shape[-1], *columns, overlap).to(tile.device)
    return torch.outer(vertical, horizontal)[None, None]


def _ramp(length: int, before: bool, behind: bool, overlap: int) -> torch.Tensor:
    import torch

    ramp = torch.ones(length, dtype=torch.float32)
    rise = (torch.arange(min(overlap, length), dtype=torch.float32) + 0.5) / overlap
    if before:
        ramp[: len(rise)] *= rise
    if behind:
        ramp[length - len(rise) :] *= rise.flip(0)
    return ramp
