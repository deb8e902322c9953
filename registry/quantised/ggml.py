"""Blocks of ggml's quantised types: how GGUF files keep weights, a row after the other in blocks of 32 or 256.

Layouts are those of ggml's ggml-common.h, numbers those of its dequantize_row functions, bit for bit (and of `gguf.quants`, which the tests
hold them against). A block begins or ends with its scales in fp16; codes of 4 bits and fewer are packed in runs: the low bits of a run of
bytes come first, then the next bits of the same bytes.
"""

# N blocks, S bytes of a block, W weights of a block, O out-width, I in-width

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.names import Table
from registry.quantised.codings import Shape
from registry.quantised.stored import FileCoding

if TYPE_CHECKING:
    from torch import Tensor

    Dequantise = Callable[[Tensor], Tensor]

SMALL, LARGE = 32, 256  # weights of a block; the large ones ("K") have scales of their own for each 16 or 32
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # kvalues_iq4nl


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """One of ggml's types."""

    weights: int  # W
    bytes: int  # S
    dequantise: Dequantise  # (N, S) bytes -> (N, W) fp32
    halves: tuple[int, ...] = (0,)  # where in a block the scales in fp16 are


TYPES: Table[BlockType] = Table("GGUF type")


def coding_of(name: str) -> FileCoding:
    """The coding of a type; codes are (O, bytes of a row), or blocks without rows."""
    block = TYPES[name]

    def rows(buffers: Sequence[Tensor], shape: Shape, index: Tensor) -> tuple[Tensor, ...] | None:
        return (buffers[0][index],) if len(buffers[0]) == shape[0] else None

    def scales(buffers: Sequence[Tensor]) -> Sequence[Tensor]:
        blocks = buffers[0].reshape(-1, block.bytes)
        return [_half(blocks[:, begin : begin + 2]) for begin in block.halves]

    return FileCoding(
        title=f"GGUF {name}",
        block=block.weights,
        buffers=("codes",),
        groups=lambda buffers, _shape: (buffers[0].reshape(-1, block.bytes),),
        decode=lambda piece, _buffers: block.dequantise(piece[0]),
        rows=rows,
        scales=scales,
    )


def row_bytes(name: str, shape: tuple[int, ...]) -> Shape | None:
    """(rows, bytes of a row) of a tensor of this shape; None where a row is no whole number of blocks."""
    block = TYPES[name]
    width = shape[-1] if shape else 1
    if width % block.weights:
        return None
    return math.prod(shape[:-1]), width // block.weights * block.bytes


def _split(blocks: Tensor, *sizes: int) -> list[Tensor]:
    """Bytes of a block in parts; the last takes the rest."""
    import torch

    return list(torch.split(blocks, [*sizes, blocks.shape[1] - sum(sizes)], dim=1))


def _half(data: Tensor) -> Tensor:
    """(N, 1) fp32 of two bytes of fp16."""
    import torch

    return data.contiguous().view(torch.float16).float()


def _signed(data: Tensor) -> Tensor:
    import torch

    return data.contiguous().view(torch.int8).float()


def _unpack(data: Tensor, run: int, bits: int) -> Tensor:
    """(N, B) bytes -> (N, B * 8 / bits) codes: of each run of bytes the lowest bits, then the next ones."""
    import torch

    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
    codes: Tensor = (data.reshape(len(data), -1, 1, run) >> shifts[:, None]) & (2**bits - 1)
    return codes.reshape(len(data), -1)


def _levels(codes: Tensor) -> Tensor:
    import torch

    return torch.tensor(IQ4_LEVELS, dtype=torch.float32, device=codes.device)[codes.int()]


def _type(name: str, weights: int, size: int, *halves: int) -> Callable[[Dequantise], Dequantise]:
    """Keep a function under its type's name."""

    def keep(dequantise: Dequantise) -> Dequantise:
        TYPES[name] = BlockType(weights=weights, bytes=size, dequantise=dequantise, halves=halves or (0,))
        return dequantise

    return keep


# --- blocks of 32: one scale d, and where there is one a minimum m


@_type("Q4_0", SMALL, 18)
def _q4_0(blocks: Tensor) -> Tensor:
    d, codes = _split(blocks, 2)
    return _half(d) * (_unpack(codes, 16, 4).float() - 8)


@_type("Q4_1", SMALL, 20, 0, 2)
def _q4_1(blocks: Tensor) -> Tensor:
    d, m, codes = _split(blocks, 2, 2)
    return _half(d) * _unpack(codes, 16, 4).float() + _half(m)


@_type("Q5_0", SMALL, 22)
def _q5_0(blocks: Tensor) -> Tensor:
    d, high, low = _split(blocks, 2, 4)
    return _half(d) * (_five_bits(low, high, 16, 1).float() - 16)


@_type("Q5_1", SMALL, 24, 0, 2)
def _q5_1(blocks: Tensor) -> Tensor:
    d, m, high, low = _split(blocks, 2, 2, 4)
    return _half(d) * _five_bits(low, high, 16, 1).float() + _half(m)


def _five_bits(low: Tensor, high: Tensor, low_run: int, high_run: int) -> Tensor:
    """Codes of 5 bits: 4 in one place, the highest in another."""
    return _unpack(low, low_run, 4) | (_unpack(high, high_run, 1) << 4)


@_type("Q8_0", SMALL, 34)
def _q8_0(blocks: Tensor) -> Tensor:
    d, codes = _split(blocks, 2)
    return _signed(codes) * _half(d)


@_type("IQ4_NL", SMALL, 18)
def _iq4_nl(blocks: Tensor) -> Tensor:
    d, codes = _split(blocks, 2)
    return _half(d) * _levels(_unpack(codes, 16, 4))


# --- blocks of 256: d (and a minimum) for the block, times small scales for its parts


@_type("Q2_K", LARGE, 84, 80, 82)
def _q2_k(blocks: Tensor) -> Tensor:
    parts, codes, d, m = _split(blocks, 16, 64, 2)
    scales, minima = _half(d) * (parts & 15).float(), _half(m) * (parts >> 4).float()  # (N, 16)
    return _scaled(_unpack(codes, 32, 2).float(), scales, minima)


@_type("Q3_K", LARGE, 110, 108)
def _q3_k(blocks: Tensor) -> Tensor:
    high, low, parts, d = _split(blocks, 32, 64, 12)
    scales = _unpack(parts[:, :8], 8, 4) | (_unpack(parts[:, 8:], 4, 2) << 4)  # (N, 16) of 6 bits
    codes = _unpack(low, 32, 2).float() - 4 * (1 - _unpack(high, 32, 1).float())
    return _scaled(codes, _half(d) * (scales.float() - 32))


@_type("Q4_K", LARGE, 144, 0, 2)
def _q4_k(blocks: Tensor) -> Tensor:
    d, m, parts, codes = _split(blocks, 2, 2, 12)
    scales, minima = _six_bits(parts)
    return _scaled(_unpack(codes, 32, 4).float(), _half(d) * scales, _half(m) * minima)


@_type("Q5_K", LARGE, 176, 0, 2)
def _q5_k(blocks: Tensor) -> Tensor:
    d, m, parts, high, low = _split(blocks, 2, 2, 12, 32)
    scales, minima = _six_bits(parts)
    return _scaled(_five_bits(low, high, 32, 32).float(), _half(d) * scales, _half(m) * minima)


@_type("Q6_K", LARGE, 210, 208)
def _q6_k(blocks: Tensor) -> Tensor:
    low, high, parts, d = _split(blocks, 128, 64, 16)
    codes = _unpack(low, 64, 4) | (_unpack(high, 32, 2) << 4)
    return _scaled(codes.float() - 32, _half(d) * _signed(parts))


@_type("IQ4_XS", LARGE, 136)
def _iq4_xs(blocks: Tensor) -> Tensor:
    d, high, low, codes = _split(blocks, 2, 2, 4)
    scales = _unpack(low, 1, 4) | (_unpack(high, 1, 2) << 4)  # (N, 8) of 6 bits
    return _scaled(_levels(_unpack(codes, 16, 4)), _half(d) * (scales.float() - 32))


def _scaled(codes: Tensor, scales: Tensor, minima: Tensor | None = None) -> Tensor:
    """(N, W) codes times the scales (N, parts) of equal parts of a block, less their minima."""
    parts = codes.reshape(*scales.shape, -1) * scales[:, :, None]
    return (parts if minima is None else parts - minima[:, :, None]).reshape(codes.shape)


def _six_bits(parts: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 12) bytes -> eight scales and eight minima of 6 bits each, in fp32.

    Four bytes have the first scales, four the first minima; the upper two bits of each belong to the last ones, whose lower four are in the
    last four bytes.
    """
    import torch

    first, second, last = parts[:, :4], parts[:, 4:8], parts[:, 8:]
    scales = torch.cat([first & 63, (last & 15) | ((first >> 2) & 48)], dim=1)
    minima = torch.cat([second & 63, (last >> 4) | ((second >> 2) & 48)], dim=1)
    return scales.float(), minima.float()
