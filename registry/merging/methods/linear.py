"""Weighted sums: what is merged place by place, with nothing known of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from registry.merging.method import Alpha, Scale, Weights, merge_method
from registry.options import Meaning

if TYPE_CHECKING:
    from torch import Tensor

Normalize = Annotated[bool, Meaning("divide by the sum of the weights")]


@merge_method("weighted_sum", sources=2)
def weighted_sum(a: Tensor, b: Tensor, *, alpha: Alpha = 0.5) -> Tensor:
    """(1 - alpha) a + alpha b. Exact at both ends; equal values stay as they are."""
    return a.lerp(b, alpha)


@merge_method("copy", least=1, copies=True)
def copy(*models: Tensor) -> Tensor:
    """The first source as it is: rules take tensors from the others or drop them, dtype and shard_mib change its form."""
    return models[0]


@merge_method("add_difference", sources=3)
def add_difference(a: Tensor, b: Tensor, c: Tensor, *, alpha: Alpha = 1.0) -> Tensor:
    """a + alpha (b - c): what b learned over c, added to a (task arithmetic with one task; Ilharco et al. 2023)."""
    return a.add(b - c, alpha=alpha)


def no_sum(**options: object) -> str | None:
    """Weights that cannot be normalised."""
    weights = options.get("weights")
    if options.get("normalize") and isinstance(weights, (list, tuple)) and sum(weights) == 0:
        return "params.weights sum to 0 and cannot be normalised. Give other weights, or params.normalize=false."
    return None


@merge_method("average", least=1, check=no_sum)
def average(*models: Tensor, weights: Weights = None, normalize: Normalize = True) -> Tensor:
    """sum w_i x_i / sum w_i (model soup; Wortsman et al. 2022). A source of weight 0 takes no part."""
    shares = weights if weights is not None else (1.0,) * len(models)
    total = sum(shares) if normalize else 1.0
    return combination(models, [share / total for share in shares])


@merge_method("task_arithmetic", base=True)
def task_arithmetic(base: Tensor, *models: Tensor, weights: Weights = None, scale: Scale = 1.0) -> Tensor:
    """base + scale sum w_i (x_i - base) (Ilharco et al. 2023, eq. 1)."""
    shares = weights if weights is not None else (1.0,) * len(models)
    return base + combination([model - base for model in models], [scale * share for share in shares], spare=True)


def combination(tensors: list[Tensor] | tuple[Tensor, ...], shares: list[float], *, spare: bool = False) -> Tensor:
    """sum share_i x_i. A share of 0 leaves its tensor out, a share of 1 alone gives the tensor to the bit.

    `spare`: nothing else needs the tensors, and the sum takes the place of one of them.
    """
    parts = [(tensor, share) for tensor, share in zip(tensors, shares, strict=True) if share != 0.0]
    if not parts:
        return tensors[0].new_zeros(tensors[0].shape)
    total, share = parts[0]
    if not spare:
        total = total * share if share != 1.0 else total.clone()
    elif share != 1.0:
        total.mul_(share)
    for tensor, share in parts[1:]:
        total.add_(tensor, alpha=share)
    return total
