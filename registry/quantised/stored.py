"""Weights as a quantised file stores them: the codes themselves, cut to a layer's rows, and never more than one weight in full.

Single files fuse layers (q, k and v are one matrix); a layer then takes its rows of codes and scales. Of what has no rows of codes (a
transposed matrix, a convolution, blocks that go on from one row into the next) the weight itself is made.
"""

# O out-width, I in-width, G groups, W numbers of a group

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.quantised.codings import Kept, Shape, pieces, view_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Buffers = Sequence[Tensor]  # in the order of the coding's names


def _floating(buffers: Buffers) -> Sequence[Tensor]:
    return [buffer for buffer in buffers if buffer.is_floating_point()]


@dataclass(frozen=True, kw_only=True)
class FileCoding(Kept):
    """How a file keeps its weights."""

    groups: Callable[[Buffers, Shape], Sequence[Tensor]]  # buffers, shape -> what has a row for each group, (G, ...)
    decode: Callable[[Sequence[Tensor], Buffers], Tensor]  # rows of the groups, buffers -> (G, W) fp32
    rows: Callable[[Buffers, Shape, Tensor], tuple[Tensor, ...] | None]  # buffers, shape, indices -> buffers of these rows
    scales: Callable[[Buffers], Sequence[Tensor]] = _floating  # what codes are multiplied by
    of_rows: FileCoding | None = None  # how these rows are kept, where that is another way
    exact: bool = False  # its codes are the model's own numbers (fp8 without scales): they may be quantised again

    def make(self, buffers: Buffers, shape: Shape, dtype: torch.dtype | None = None, *, room: Tensor | None = None) -> Tensor:
        """In pieces that stay in a processor's cache, as a coding that is made here."""
        import torch

        dtype, groups = dtype or torch.float32, self.groups(buffers, shape)
        size = (len(groups[0]), self.block or shape[1])
        weight = torch.empty(size, dtype=dtype, device=groups[0].device) if room is None else view_of(room, size, dtype)
        for piece in pieces(size, weight.device):
            weight[piece] = self.decode([group[piece] for group in groups], buffers)
        if weight.device.type == "meta":
            weight.zero_()  # in a trace the traffic of the other pieces
        flat = weight.reshape(-1)
        return (flat if flat.numel() == math.prod(shape) else flat[: math.prod(shape)]).reshape(shape)


@dataclass(frozen=True)
class StoredWeight:
    """One weight of a file. On the meta device it has the sizes alone."""

    coding: FileCoding
    buffers: tuple[Tensor, ...]
    shape: tuple[int, ...]  # (O, I), or a convolution's

    @property
    def matrix(self) -> Shape:
        """(O, I): a convolution's as one row an output channel."""
        return self.shape[0], math.prod(self.shape[1:])

    @property
    def nbytes(self) -> int:
        """What is kept of it."""
        return sum(buffer.nbytes for buffer in self.buffers)

    @property
    def has_finite_scales(self) -> bool:
        """Whether every scale is a number: one that is none makes all weights of its group none."""
        return all(bool(scales.isfinite().all()) for scales in self.coding.scales(self.buffers))

    def full(self) -> Tensor:
        """The weight in fp32."""
        return self.coding.make(self.buffers, self.matrix).reshape(self.shape)

    def take(self, rows: Tensor) -> StoredWeight | None:
        """These rows, in this order; None where they are not made of codes of their own."""
        buffers = self.coding.rows(self.buffers, self.matrix, rows)
        return None if buffers is None else StoredWeight(self.coding.of_rows or self.coding, buffers, (len(rows), *self.shape[1:]))
