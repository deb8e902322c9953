"""The SVD of what a module changes, from the smallest matrices that have it: factors of LoRA, LoHa and LoKr, never their product.

A Kronecker product has the products of its factors' singular values, and the Kronecker products of their vectors: the SVD of a
1280 x 1280 LoKr is that of an 8 x 8 and of a 160 x 160 matrix.
"""

# R rank, I in-width (a convolution's kernel with it), O out-width, K number of singular values

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.adapters.delta import delta, delta_shape, factors, kronecker_sides
from registry.adapters.factors import Factors, Spectrum, concatenated, dense_spectrum, first_spectrum, spectrum
from registry.adapters.reader import Module

if TYPE_CHECKING:
    from torch import Tensor

RankOf = Callable[["Tensor", float], int]  # how many of these falling values are kept, and the sum of the squares of all


def sum_spectrum(parts: Sequence[tuple[Module, float]], rank_of: RankOf, most: int | None = None) -> Spectrum:
    """The SVD of the weighted sum of what modules change, none of which needs its base; at least `rank_of(values, square)` of its vectors.

    `most`: so many values are enough, and the others are left out where that is faster.
    """
    if len(parts) == 1 and parts[0][0].algorithm == "lokr":
        return _weighted(kronecker_spectrum(parts[0][0], rank_of, most), parts[0][1])
    low = [(found, weight) for module, weight in parts if (found := low_rank(module)) is not None]
    if len(low) == len(parts):
        whole = concatenated(low)
        if whole.rank * 2 <= min(whole.up.shape[0], whole.down.shape[1]):
            return spectrum(whole)
    total = delta(parts[0][0], weight=parts[0][1]).clone()
    for module, weight in parts[1:]:
        total += delta(module, weight=weight).reshape(total.shape)
    return first_spectrum(total if total.ndim > 1 else total[:, None], most)


def low_rank(module: Module) -> Factors | None:
    """The change as a product of two factors, however many columns they need; None where it has no such form."""
    if module.is_product:
        return factors_of(module)
    if module.algorithm == "loha" and module.roles <= {"w1_a", "w1_b", "w2_a", "w2_b", "alpha"}:
        return _hadamard(module)
    if module.algorithm == "lokr" and {"w2_a", "w2_b"} <= module.roles <= {"w1", "w1_a", "w1_b", "w2_a", "w2_b", "alpha"}:
        return _kronecker(module)
    return None


def factors_of(module: Module) -> Factors:
    """A plain LoRA's factors; a 1 x 1 convolution keeps its axes."""
    up, down = factors(module)
    return Factors(up, down, delta_shape(module))


def _hadamard(module: Module) -> Factors:
    """(A1 B1) * (A2 B2), element by element: the rows of A1 and A2 multiplied in all pairs, by the pairs of rows of B1 and B2."""
    first, second, third, fourth = (module.tensor(role) for role in ("w1_a", "w2_a", "w1_b", "w2_b"))
    scale = module.scale(module.declared_rank or third.shape[0])
    up = (first[:, :, None] * second[:, None, :]).flatten(1) * scale  # (O, R R)
    down = (third[:, None, :] * fourth[None, :, :]).flatten(0, 1)  # (R R, I)
    return Factors(up, down, (up.shape[0], down.shape[1]))


def _kronecker(module: Module) -> Factors:
    """W1 x (A B) = (W1 x A)(1 x B) = (1 x A)(W1 x B): the one with fewer columns."""
    import torch

    first, _second, scale = kronecker_sides(module)
    a, b = module.tensor("w2_a"), module.tensor("w2_b")
    rows, columns = first.shape
    if rows < columns:
        up, down = torch.kron(torch.eye(rows), a), torch.kron(first.contiguous(), b)
    else:
        up, down = torch.kron(first.contiguous(), a), torch.kron(torch.eye(columns), b)
    return Factors(up * scale, down, (up.shape[0], down.shape[1]))


def kronecker_spectrum(module: Module, rank_of: RankOf, most: int | None = None) -> Spectrum:
    """The SVD of a LoKr from those of its two sides: all values or the first `most`, and `rank_of(values, square)` of the vectors."""
    import torch

    first, second, scale = kronecker_sides(module)
    left, right = dense_spectrum(first), _side(module, second, most)
    shape = (first.shape[0] * second.shape[0], first.shape[1] * second.shape[1], *second.shape[2:])
    values, order = torch.outer(left.values, right.values).flatten().sort(descending=True, stable=True)
    whole = None
    if right.whole is not None:  # a product with one that was left out is behind `most` others
        values, whole = values[:most], left.square * right.whole
    scaled = values * abs(scale)
    square = float(scaled.square().sum()) if whole is None else whole * scale**2
    order = order[: max(1, rank_of(scaled, square))]
    outer, inner = order // len(right.values), order % len(right.values)
    u = (left.u[:, None, outer] * right.u[None, :, inner]).flatten(0, 1)
    vh = (left.vh[outer, :, None] * right.vh[inner, None, :]).flatten(1)
    return _weighted(Spectrum(u, values, vh, shape, whole), scale)


def _side(module: Module, second: Tensor, most: int | None) -> Spectrum:
    """The SVD of the larger side, from its own factors where it has them."""
    if {"w2_a", "w2_b"} <= module.roles and "t2" not in module.roles:
        return spectrum(Factors(module.tensor("w2_a"), module.tensor("w2_b"), tuple(second.shape)))
    return first_spectrum(second, most)


def _weighted(found: Spectrum, weight: float) -> Spectrum:
    """The SVD of a multiple: values stay positive, the sign is in the left vectors."""
    if weight == 1.0:
        return found
    whole = None if found.whole is None else found.whole * weight**2
    return replace(found, values=found.values * abs(weight), u=-found.u if weight < 0 else found.u, whole=whole)
