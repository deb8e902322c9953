"""Codes of 8 bits with a scale: fp8 and int8 weights, a scale for all, for each row, or for each block of rows and columns."""

# O out-width, I in-width, G rows of a piece; M N blocks of rows and of columns

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from registry.quantised.codings import Shape, numbers_of
from registry.quantised.stored import FileCoding

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def scaled(title: str, dtype: torch.dtype) -> FileCoding:
    """weight = codes * scale; codes (O, I) of this dtype are kept as bytes, scales are (M, N)."""

    def groups(buffers: Sequence[Tensor], shape: Shape) -> Sequence[Tensor]:
        codes, scales = buffers
        return codes, scales.repeat_interleave(shape[0] // len(scales), 0)

    def decode(piece: Sequence[Tensor], _buffers: Sequence[Tensor]) -> Tensor:
        codes, scales = piece  # (G, I), (G, N)
        blocks = numbers_of(codes, dtype).reshape(*scales.shape, -1)
        return blocks.mul_(scales[:, :, None]).reshape(codes.shape)

    def rows(buffers: Sequence[Tensor], shape: Shape, index: Tensor) -> tuple[Tensor, ...]:
        codes, scales = buffers
        return codes[index], scales if len(scales) == 1 else scales.repeat_interleave(shape[0] // len(scales), 0)[index]

    return FileCoding(title=title, groups=groups, decode=decode, rows=rows)


def unscaled(title: str, dtype: torch.dtype) -> FileCoding:
    """The codes (O, I) are the weight's own numbers in this dtype, kept as bytes."""
    return FileCoding(
        title=title,
        buffers=("codes",),
        groups=lambda buffers, _shape: buffers,
        decode=lambda piece, _buffers: numbers_of(piece[0], dtype),
        rows=lambda buffers, _shape, index: (buffers[0][index],),
        exact=True,
    )


def scale_shape(shape: tuple[int, ...], scale: tuple[int, ...]) -> Shape | None:
    """(M, N) of a scale of this shape beside a weight of that one; None where it fits no blocks of it."""
    height, width = shape[0], 1
    for size in shape[1:]:
        width *= size
    numbers = [size for size in scale if size != 1] if len(scale) != 2 else list(scale)
    tall, wide = (1, 1) if not numbers else (numbers[0], 1) if len(numbers) == 1 else tuple(numbers) if len(numbers) == 2 else (0, 0)
    return (tall, wide) if tall and wide and height % tall == 0 and width % wide == 0 else None


def codes_of(key: str, read: Callable[[str], Tensor]) -> tuple[Tensor, ...]:
    """The bytes of a weight's codes, (O, I), by a reader of single tensors."""
    import torch

    codes = read(key)
    return (codes.reshape(codes.shape[0], -1).view(torch.uint8),)


def scaled_buffers(key: str, scale: str, blocks: Shape, read: Callable[[str], Tensor]) -> tuple[Tensor, ...]:
    """Codes, and scales (M, N) in fp32."""
    return (*codes_of(key, read), read(scale).float().reshape(blocks))
