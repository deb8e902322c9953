"""Codings of frozen weights: what is kept of a matrix, and the matrix of it again.

Each is a table row: how a group of numbers that share a scale becomes codes, and numbers again. A group is a row of the matrix, or a
block of its numbers in the order of the rows. Codes are kept as bytes, so that a cast of the model's dtype leaves them alone; scales are
fp32. Both ways go through a matrix in pieces that stay in a processor's cache: what is made in passing is small, and ten times as fast.
Files that are quantised already have codings of their own (registry/quantised/stored).
"""

# O out-width, I in-width, G groups, W numbers of a group

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from registry.names import Table
from registry.quantised.double import BLOCK, quantised_scales, scales_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Shape = tuple[int, int]  # (O, I)

INT8_LARGEST = 127  # symmetric: -127 .. 127
CACHED, LAUNCHED = 1 << 16, 1 << 22  # numbers of a piece: 256 KiB of fp32 on a CPU; on a GPU kernels that are worth their launch
FP8_LARGEST = 448.0  # the largest number of e4m3 (Micikevicius et al. 2022, table 1)
COMPUTE = ("int8", "fp8")  # arithmetic of layers that are kept in it: registry/quantised/products.py
NF4_CELLS = 16  # of a grid over 0 .. 1, each narrower than what lies between two boundaries of NF4's levels
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
class Kept(ABC):
    """One way to keep a weight, and to make it again."""

    title: str  # for people
    block: int | None = None  # numbers of a group; None: a row
    buffers: tuple[str, ...] = ("codes", "scales")  # names of what is kept

    @abstractmethod
    def make(self, buffers: Sequence[Tensor], shape: Shape, dtype: torch.dtype | None = None, *, room: Tensor | None = None) -> Tensor:
        """The weight (O, I), rounded from fp32 to `dtype` (None: fp32); in `room`, bytes on the same device, where that is given."""

    def numbers(self, shape: Shape) -> int:
        """Numbers of all groups: those that fill the last block too."""
        count = math.prod(shape)
        return count if self.block is None else -(-count // self.block) * self.block


@dataclass(frozen=True, kw_only=True)
class Coding(Kept):
    """One that weights are quantised to here."""

    bits: float  # a weight, scales included, of a wide matrix
    largest: float  # what the largest number of a group becomes
    encode: Callable[[Tensor], Tensor]  # (G, W) fp32 in -largest .. largest, which it may overwrite -> codes (G, W / packed)
    decode: Callable[[Tensor], Tensor]  # codes -> (G, W) fp32
    packed: int = 1  # numbers of a byte
    signed: bool = False  # codes are int8, else uint8

    def sizes(self, shape: Shape) -> tuple[tuple[int, ...], ...]:
        """Shapes of what is kept, of the codes and of the scales: those of blocks are flat."""
        if self.block is None:
            return shape, (shape[0], 1)
        blocks = -(-math.prod(shape) // self.block)
        return (blocks * self.block // self.packed,), (blocks,)

    def bytes_of(self, shape: Shape) -> int:
        """Bytes of what is kept."""
        return sum(buffer.nbytes for buffer in self.empty(shape))

    def empty(self, shape: Shape) -> tuple[Tensor, ...]:
        """What is kept of a weight, on the meta device: sizes and dtypes alone."""
        import torch

        codes, scales, *others = (torch.empty(size, device="meta") for size in self.sizes(shape))
        return codes.to(torch.int8 if self.signed else torch.uint8), scales.to(torch.uint8) if others else scales, *others

    def quantise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Codes and scales of a weight (O, I) of any real dtype. The last block is filled with zeros."""
        import torch

        groups = self._groups(weight)
        kind = torch.int8 if self.signed else torch.uint8
        codes = torch.empty((groups.shape[0], groups.shape[1] // self.packed), dtype=kind, device=weight.device)
        scales = torch.empty((groups.shape[0], 1), device=weight.device)
        for piece in pieces(groups.shape, weight.device):
            wide = groups[piece].float()
            scale = scales[piece].copy_(wide.abs().amax(dim=1, keepdim=True).div_(self.largest))
            codes[piece] = self.encode(wide / torch.where(scale > 0, scale, torch.ones_like(scale)))
        if self.block is None:
            scales.masked_fill_(~(scales > 0), 1.0)
        kept = self.sizes((weight.shape[0], weight.shape[1]))
        return codes.reshape(kept[0]), scales.reshape(kept[1])

    def make(self, buffers: Sequence[Tensor], shape: Shape, dtype: torch.dtype | None = None, *, room: Tensor | None = None) -> Tensor:
        codes, scales = self.with_scales(buffers)
        return self.dequantise(codes, scales, shape, dtype, room=room)

    def with_scales(self, buffers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Codes, and scales in fp32, of what is kept."""
        codes, scales = buffers
        return codes, scales

    def dequantise(
        self, codes: Tensor, scales: Tensor, shape: Shape, dtype: torch.dtype | None = None, *, room: Tensor | None = None
    ) -> Tensor:
        """The weight (O, I), rounded from fp32 to `dtype` (None: fp32); in `room`, bytes on the same device, where that is given."""
        import torch

        dtype, width = dtype or torch.float32, self.block or shape[1]
        codes, scales = codes.reshape(-1, width // self.packed), scales.reshape(-1, 1)
        size = (codes.shape[0], width)
        weight = torch.empty(size, dtype=dtype, device=codes.device) if room is None else view_of(room, size, dtype)
        for piece in pieces(weight.shape, codes.device):
            weight[piece] = self.decode(codes[piece]).mul_(scales[piece])
        if weight.device.type == "meta":
            weight.zero_()  # in a trace the traffic of the other pieces
        flat = weight.reshape(-1)
        return (flat if flat.numel() == math.prod(shape) else flat[: math.prod(shape)]).reshape(shape)

    def in_one(self, buffers: Sequence[Tensor], shape: Shape) -> Tensor:
        """The weight (O, I) in fp32, in one expression without pieces: for a compiler."""
        codes, scales = self.with_scales(buffers)
        width = self.block or shape[1]
        weight = self.decode(codes.reshape(-1, width // self.packed)) * scales.reshape(-1, 1)
        return weight.reshape(-1)[: math.prod(shape)].reshape(shape)

    def squares(self, weight: Tensor, *buffers: Tensor) -> tuple[float, float]:
        """||W||^2 and ||W' - W||^2 of the weight that was quantised."""
        codes, scales = self.with_scales(buffers)
        groups = self._groups(weight)
        codes, scales = codes.reshape(groups.shape[0], -1), scales.reshape(-1, 1)
        whole = lost = 0.0
        for piece in pieces(groups.shape, weight.device):
            wide = groups[piece].float().reshape(-1)
            apart = self.decode(codes[piece]).mul_(scales[piece]).reshape(-1).sub_(wide)
            whole, lost = whole + float(wide.dot(wide)), lost + float(apart.dot(apart))
        return whole, lost

    def _groups(self, weight: Tensor) -> Tensor:
        """The weight as (G, W)."""
        import torch

        if self.block is None:
            return weight
        flat = weight.reshape(-1)
        missing = -len(flat) % self.block
        return (torch.nn.functional.pad(flat, (0, missing)) if missing else flat).reshape(-1, self.block)


@dataclass(frozen=True, kw_only=True)
class DoubleCoding(Coding):
    """One of blocks whose scales are quantised once more."""

    buffers: tuple[str, ...] = ("codes", "scales", "nested_scales", "offset")

    def sizes(self, shape: Shape) -> tuple[tuple[int, ...], ...]:
        codes, scales = super().sizes(shape)
        return codes, scales, (-(-scales[0] // BLOCK),), (1,)

    def quantise(self, weight: Tensor) -> tuple[Tensor, ...]:
        codes, scales = super().quantise(weight)
        return codes, *quantised_scales(scales)

    def with_scales(self, buffers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        codes, scales, largest, offset = buffers
        return codes, scales_of(scales, largest, offset)


def view_of(room: Tensor, size: Shape, dtype: torch.dtype) -> Tensor:
    return room[: math.prod(size) * dtype.itemsize].view(dtype).view(size)


def pieces(shape: tuple[int, ...], device: torch.device) -> Iterator[slice]:
    """The rows (G) of a matrix (G, W) in pieces; of an empty one (on the meta device) the first, as one is made after the other."""
    step = max(1, (CACHED if device.type == "cpu" else LAUNCHED) // max(1, shape[1]))
    return (slice(begin, begin + step) for begin in range(0, min(shape[0], step) if device.type == "meta" else shape[0], step))


CODINGS: Table[Coding] = Table("base dtype")


def _encode_int8(shares: Tensor) -> Tensor:
    import torch

    return shares.round_().clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)


def _decode_int8(codes: Tensor) -> Tensor:
    return codes.float()


def _encode_fp8(shares: Tensor) -> Tensor:
    import torch

    return shares.clamp_(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn).view(torch.uint8)


def _decode_fp8(codes: Tensor) -> Tensor:
    import torch

    return numbers_of(codes, torch.float8_e4m3fn)


def numbers_of(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """The fp32 numbers of bytes that are numbers of 8 bits in this dtype."""
    if codes.device.type != "cpu" or not dtype.is_floating_point:
        return codes.view(dtype).float()
    return _byte_numbers(dtype).index_select(0, codes.reshape(-1).int()).reshape(codes.shape)  # torch converts fp8 one by one there


@cache
def _byte_numbers(dtype: torch.dtype) -> Tensor:
    """(256,): the number of each byte."""
    import torch

    return torch.arange(256, dtype=torch.uint8).view(dtype).float()


def _encode_nf4(shares: Tensor) -> Tensor:
    """Two codes a byte, the first in the high bits: the number of boundaries below each share.

    No cell of a grid over -1 .. 1 has more than one boundary in it, so a share is compared with that of its own cell alone. The place in
    the grid is a monotonic function, rounding included: no boundary of another cell is on the wrong side.
    """
    import torch

    shares = shares.reshape(-1)
    cells = _nf4_place(shares).clamp_(0, 2 * NF4_CELLS).int()  # of NaN too
    found = _nf4_cells(shares.device).index_select(0, cells)  # (N,): a boundary and the number of those before
    boundary, before = found.view(torch.float32)[0::2], found.view(torch.int32)[1::2]
    above = (boundary - shares).view(torch.int32).bitwise_right_shift_(31)  # -1 where the share is above
    codes = (before - above).to(torch.uint8).reshape(-1, NF4_BLOCK)
    return (codes[:, 0::2] << 4) | codes[:, 1::2]


def _nf4_place(shares: Tensor) -> Tensor:
    return (shares * NF4_CELLS).add_(NF4_CELLS)


@cache
def _nf4_cells(device: torch.device) -> Tensor:
    """(2 NF4_CELLS + 1,) int64: for each cell of the grid the boundary in it (infinity: none), and how many lie in cells before it."""
    import torch

    levels = torch.tensor(NF4_LEVELS)
    boundaries = (levels[1:] + levels[:-1]) / 2
    places = _nf4_place(boundaries.clone()).int()
    within = torch.full((2 * NF4_CELLS + 1,), torch.inf).index_copy_(0, places.long(), boundaries)
    before = (places[None] < torch.arange(2 * NF4_CELLS + 1)[:, None]).sum(1, dtype=torch.int32)
    return torch.stack([within.view(torch.int32), before], dim=1).view(torch.int64).reshape(-1).to(device)


def _decode_nf4(codes: Tensor) -> Tensor:
    import torch

    pairs = _nf4_pairs(codes.device).index_select(0, codes.reshape(-1).int())
    return pairs.view(torch.float32).reshape(-1, NF4_BLOCK)


@cache
def _nf4_pairs(device: torch.device) -> Tensor:
    """(256,) int64: both levels of each byte. One copied number of eight bytes is faster than two of four."""
    import torch

    levels = torch.tensor(NF4_LEVELS)
    return torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1).view(torch.int64).reshape(-1).to(device)


CODINGS.add("int8")(
    Coding(
        title="int8, a scale a row",
        bits=8.0,
        largest=INT8_LARGEST,
        encode=_encode_int8,
        decode=_decode_int8,
        signed=True,
    )
)
CODINGS.add("fp8")(Coding(title="fp8 (e4m3), a scale a row", bits=8.0, largest=FP8_LARGEST, encode=_encode_fp8, decode=_decode_fp8))
CODINGS.add("nf4")(
    Coding(title="nf4, a scale a block of 64", bits=4.5, largest=1.0, encode=_encode_nf4, decode=_decode_nf4, block=NF4_BLOCK, packed=2)
)
CODINGS.add("nf4-dq")(
    DoubleCoding(
        title="nf4, a scale of 8 bits a block of 64",
        bits=4.127,
        largest=1.0,
        encode=_encode_nf4,
        decode=_decode_nf4,
        block=NF4_BLOCK,
        packed=2,
    )
)
