"""Scales of blocks that are quantised once more (double quantisation, Dettmers et al. 2023, section 3): 8 bits a scale in place of 32.

As bitsandbytes 0.50 does it: less their mean, in blocks of 256 that share a fp32 scale, to the nearest of 256 levels that are closer
together towards 0 (Dettmers 2016, 8-bit approximations, its create_dynamic_map).
"""

# G blocks of the weight, H blocks of their scales

from __future__ import annotations

from functools import cache
from itertools import pairwise
from struct import pack, unpack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK = 256  # scales that share a scale
DECADES = 7  # of the levels: 1e-6 to 1, twice as many levels in each as in the one below


def quantised_scales(scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (G,) in uint8, their scales (H,) and the offset (1,) in fp32 of the scales (G,) of a weight."""
    import torch

    offset = scales.mean().reshape(1)
    blocks = torch.nn.functional.pad(scales - offset, (0, -len(scales) % BLOCK)).reshape(-1, BLOCK)
    largest = blocks.abs().amax(dim=1)
    shares = blocks / torch.where(largest > 0, largest, torch.ones_like(largest))[:, None]
    codes = torch.searchsorted(_boundaries(scales.device), shares).to(torch.uint8)
    return codes.reshape(-1)[: len(scales)].clone(), largest, offset


def scales_of(codes: Tensor, largest: Tensor, offset: Tensor) -> Tensor:
    """The scales (G,) in fp32 again."""
    wide = _levels(codes.device).index_select(0, codes.int())
    return wide * largest.repeat_interleave(BLOCK)[: len(codes)] + offset


def _fp32(number: float) -> float:
    found: float = unpack("f", pack("f", number))[0]
    return found


def _line(pieces: int) -> list[float]:
    """0.1 to 1 in equal pieces, rounded as torch.linspace does in fp32: each half from its own end."""
    begin, step = _fp32(0.1), _fp32((1 - _fp32(0.1)) / pieces)
    ends = (begin + step * place if 2 * place < pieces + 1 else 1 - step * (pieces - place) for place in range(pieces + 1))
    return [_fp32(end) for end in ends]


def _decade(number: int) -> list[float]:
    """The positive levels of one decade: the middles of 2^number pieces."""
    line = _line(2**number)
    return [_fp32(_fp32(10 ** (number - DECADES + 1)) * _fp32((low + high) / 2)) for low, high in pairwise(line)]


POSITIVE = [level for number in range(DECADES) for level in _decade(number)]
LEVELS = tuple(sorted([0.0, 1.0, *POSITIVE, *(-level for level in POSITIVE)]))  # 256


@cache
def _levels(device: torch.device) -> Tensor:
    """(256,) in fp32, from the least to the largest."""
    import torch

    return torch.tensor(LEVELS, device=device)


@cache
def _boundaries(device: torch.device) -> Tensor:
    """(255,): halfway between two levels."""
    levels = _levels(device)
    return (levels[1:] + levels[:-1]) / 2
