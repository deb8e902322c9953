"""Codes of 4 bits in blocks, as bitsandbytes stores them: nf4 and fp4, with scales in fp32 or quantised once more.

weight = levels[code] * scale of its block; with double quantisation (Dettmers et al. 2023, section 3) a scale is itself a code of 8 bits:
nested_levels[code] * nested scale of its block + offset. The tables of levels are the file's own.
"""

# G blocks

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.quantised.codings import Shape
from registry.quantised.stored import FileCoding

if TYPE_CHECKING:
    from torch import Tensor


def four_bits(name: str, block: int) -> FileCoding:
    """Codes two a byte, the first in the high bits, filled up to whole blocks; scales (G,) in fp32, levels (16,)."""

    def rows(buffers: Sequence[Tensor], shape: Shape, index: Tensor) -> tuple[Tensor, ...] | None:
        codes, scales, levels = buffers
        if shape[1] % block:
            return None
        return codes.reshape(shape[0], -1)[index].flatten(), scales.reshape(shape[0], -1)[index].flatten(), levels

    return FileCoding(
        title=name,
        block=block,
        buffers=("codes", "scales", "levels"),
        groups=lambda buffers, _shape: (buffers[0].reshape(-1, block // 2), buffers[1][:, None]),
        decode=lambda piece, buffers: _numbers(piece[0], buffers[2]).reshape(-1, block).mul_(piece[1]),
        rows=rows,
    )


def _numbers(codes: Tensor, levels: Tensor) -> Tensor:
    """Both levels of each byte."""
    import torch

    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)  # (256, 2)
    return pairs.index_select(0, codes.reshape(-1).int())


def double_quantised(name: str, block: int, nested_block: int) -> FileCoding:
    """The same with scales (G,) of 8 bits: nested scales in fp32, nested levels (256,), offset (1,)."""
    plain = four_bits(name, block)

    def scales_of(buffers: Sequence[Tensor]) -> Tensor:
        """(G,) in fp32."""
        _codes, scales, _levels, nested_scales, nested_levels, offset = buffers
        wide = nested_levels.index_select(0, scales.int()) * nested_scales.repeat_interleave(nested_block)[: len(scales)]
        return wide + offset

    def rows(buffers: Sequence[Tensor], shape: Shape, index: Tensor) -> tuple[Tensor, ...] | None:
        return plain.rows((buffers[0], scales_of(buffers), buffers[2]), shape, index)  # nested blocks go on from one row into the next

    return FileCoding(
        title=f"{name} (double quantisation)",
        block=block,
        buffers=(*plain.buffers, "nested_scales", "nested_levels", "offset"),
        groups=lambda buffers, _shape: (buffers[0].reshape(-1, block // 2), scales_of(buffers)[:, None]),
        decode=plain.decode,
        rows=rows,
        of_rows=plain,
    )
