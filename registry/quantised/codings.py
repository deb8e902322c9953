"""Codings of frozen weights: what is kept of a matrix, and the matrix of it again.

Each is a table row: `quantise` gives codes and scales, `dequantise` the weight in fp32. Codes are kept as bytes, so that a cast of the
model's dtype leaves them alone; scales are fp32.
"""

# O out-width, I in-width, N blocks

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.names import Table

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, int]  # (O, I)

INT8_LARGEST = 127  # symmetric: -127 .. 127
FP8_LARGEST = 448.0  # the largest number of e4m3 (Micikevicius et al. 2022, table 1)
NF4_BLOCK = 64  # weights that share a scale (Dettmers et al. 2023)
# The 16 levels of NormalFloat: quantiles of a normal distribution on [-1, 1] with an exact zero (Dettmers et al. 2023, appendix E).
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@dataclass(frozen=True, kw_only=True)
class Coding:
    """One way to keep a weight."""

    title: str  # for people
    bits: float  # a weight, scales included, of a wide matrix
    quantise: Callable[[Tensor], tuple[Tensor, Tensor]]  # weight (O, I) of any real dtype -> codes, scales
    dequantise: Callable[[Tensor, Tensor, Shape], Tensor]  # codes, scales, shape -> weight (O, I) in fp32
    sizes: Callable[[Shape], tuple[tuple[int, ...], tuple[int, ...]]]  # shape -> shapes of the codes and of the scales
    signed: bool = False  # codes are int8, else uint8

    def bytes_of(self, shape: Shape) -> int:
        """Bytes of codes and scales."""
        codes, scales = self.sizes(shape)
        return math.prod(codes) + 4 * math.prod(scales)


CODINGS: Table[Coding] = Table("base dtype")


def _channel_scales(weight: Tensor, largest: float) -> Tensor:
    """(O, 1): what a row's largest number is divided by; 1 for rows of zeros."""
    import torch

    scales = weight.abs().amax(dim=1, keepdim=True) / largest
    return torch.where(scales > 0, scales, torch.ones_like(scales))


def _by_channel(shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return shape, (shape[0], 1)


def _quantise_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    wide = weight.float()
    scales = _channel_scales(wide, INT8_LARGEST)
    return (wide / scales).round().clamp(-INT8_LARGEST, INT8_LARGEST).to(torch.int8), scales


def _dequantise_int8(codes: Tensor, scales: Tensor, _shape: Shape) -> Tensor:
    return codes.float() * scales


def _quantise_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    wide = weight.float()
    scales = _channel_scales(wide, FP8_LARGEST)
    return (wide / scales).clamp(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn).view(torch.uint8), scales


def _dequantise_fp8(codes: Tensor, scales: Tensor, _shape: Shape) -> Tensor:
    import torch

    return codes.view(torch.float8_e4m3fn).float() * scales


def _nf4_sizes(shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    blocks = -(-math.prod(shape) // NF4_BLOCK)
    return (blocks * NF4_BLOCK // 2,), (blocks,)


def _quantise_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of 64 in the order of the rows, the last filled with zeros; two codes a byte, the first in the high bits."""
    import torch

    flat = weight.float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % NF4_BLOCK)).reshape(-1, NF4_BLOCK)  # (N, 64)
    scales = blocks.abs().amax(dim=1)  # (N,)
    shares = blocks / torch.where(scales > 0, scales, torch.ones_like(scales))[:, None]
    levels = torch.tensor(NF4_LEVELS, device=weight.device)
    codes = torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8).flatten()
    return (codes[0::2] << 4) | codes[1::2], scales


def _dequantise_nf4(codes: Tensor, scales: Tensor, shape: Shape) -> Tensor:
    import torch

    levels = torch.tensor(NF4_LEVELS, device=codes.device)
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)  # (256, 2): both levels of a byte
    blocks = pairs.index_select(0, codes.int()).reshape(-1, NF4_BLOCK) * scales[:, None]
    return blocks.flatten()[: math.prod(shape)].reshape(shape)


CODINGS.add("int8")(
    Coding(
        title="int8, a scale a row",
        bits=8.0,
        quantise=_quantise_int8,
        dequantise=_dequantise_int8,
        sizes=_by_channel,
        signed=True,
    )
)
CODINGS.add("fp8")(
    Coding(title="fp8 (e4m3), a scale a row", bits=8.0, quantise=_quantise_fp8, dequantise=_dequantise_fp8, sizes=_by_channel)
)
CODINGS.add("nf4")(
    Coding(title="nf4, a scale a block of 64", bits=4.5, quantise=_quantise_nf4, dequantise=_dequantise_nf4, sizes=_nf4_sizes)
)
