"""LoKr: a delta that is the Kronecker product of a small matrix and a larger one (Yeh et al. 2024, LyCORIS, sec. 3.3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from train.adapters.layer import AdapterLayer, draw

if TYPE_CHECKING:
    from torch import Tensor


def split(width: int, factor: int | None) -> tuple[int, int]:
    """Two numbers whose product is the width, the smaller first: at most `factor`, else the nearest to a square."""
    limit = math.isqrt(width) if factor is None else min(factor, math.isqrt(width))
    first = next(number for number in range(limit, 0, -1) if width % number == 0)
    return first, width // first


def lokr_shapes(
    shape: tuple[int, ...], rank: int, *, factor: int | None, decompose_both: bool, full_matrix: bool
) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer by name. A matrix whose factors would not be smaller is kept whole."""
    (out_small, out_large), (in_small, in_large) = split(shape[0], factor), split(shape[1], factor)
    kernel = shape[2:]
    columns = in_large * math.prod(kernel)
    first: dict[str, tuple[int, ...]] = {"lokr_w1": (out_small, in_small)}
    if decompose_both and rank * (out_small + in_small) < out_small * in_small and not full_matrix:
        first = {"lokr_w1_a": (out_small, rank), "lokr_w1_b": (rank, in_small)}
    second: dict[str, tuple[int, ...]] = {"lokr_w2": (out_large, in_large, *kernel)}
    if rank * (out_large + columns) < out_large * columns and not full_matrix:
        second = {"lokr_w2_a": (out_large, rank), "lokr_w2_b": (rank, columns)}
    return first | second


class LoKr(AdapterLayer):
    """D = w1 (x) w2 * alpha / rank; the scale is 1 where neither matrix is a product, as every reader of its files has it."""

    def __init__(self, base: Any, *, rank: int, scale: float, generator: torch.Generator, options: dict[str, Any]) -> None:
        super().__init__(base, rank=rank, scale=scale)
        shapes = lokr_shapes(self.shape, rank, **options)
        for name, shape in shapes.items():
            weight = self._weight(name, *shape)
            if name not in ("lokr_w2", "lokr_w2_b"):  # these begin at zero: the base unchanged
                draw(weight, generator, 1 / math.sqrt(shape[-1] if name != "lokr_w2_a" else rank))
        self.whole = "lokr_w1" in shapes and "lokr_w2" in shapes

    def _matrices(self) -> tuple[Tensor, Tensor]:
        weights = dict(self.named_parameters(recurse=False))
        one = weights["lokr_w1"] if "lokr_w1" in weights else weights["lokr_w1_a"] @ weights["lokr_w1_b"]
        two = weights["lokr_w2"] if "lokr_w2" in weights else weights["lokr_w2_a"] @ weights["lokr_w2_b"]
        return one * (1.0 if self.whole else self.scale), two.flatten(1)

    def delta(self) -> Tensor:
        one, two = self._matrices()
        return torch.kron(one, two).reshape(self.shape)

    def changed(self, inputs: Tensor, result: Tensor) -> Tensor:
        """Without making the delta where the layer is linear: w2 over the groups of inputs, then w1 between the groups."""
        if len(self.shape) != 2:
            return super().changed(inputs, result)
        one, two = self._matrices()
        groups = inputs.reshape(*inputs.shape[:-1], one.shape[1], two.shape[1])  # (B, ..., I1, I2)
        between = functional.linear(groups, two.to(inputs.dtype))  # (B, ..., I1, O2)
        return result + (one.to(inputs.dtype) @ between).flatten(-2).to(result.dtype)

    def delta_norm(self) -> float:
        """||w1|| ||w2||: that of a Kronecker product."""
        one, two = self._matrices()
        return float(one.float().norm()) * float(two.float().norm())

    def file_tensors(self) -> dict[str, Tensor]:
        return self._numbers() | self._alpha(self.scale * self.rank)
