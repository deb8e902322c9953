"""Differences from a base, thinned before they are added: TIES and its kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from registry.merging.method import Density, Pieces, Says, Scale, Weights, merge_method
from registry.merging.pieces import Held, kth_largest

if TYPE_CHECKING:
    from torch import Tensor

Sign = Annotated[
    Literal["weighted", "unweighted", "count"],
    Says("whose sign wins a place: of the weighted sum (paper, mergekit), of the plain sum (PEFT total), of the majority (PEFT frequency)"),
]
Divide = Annotated[
    Literal["weights", "count", "none"],
    Says("what the sum of the agreeing values is divided by: their weights (mergekit), their number (PEFT), nothing"),
]


def measure_cut(pieces: Pieces, *, density: float, **_options: object) -> list[float]:
    """The magnitude of the last value that each source keeps; 0 keeps all."""
    if density >= 1.0:
        return [0.0] * (len(next(iter(pieces))) - 1)
    kept = max(1, int(density * pieces.count))
    return [cut for (cut,) in kth_largest(pieces, lambda piece: [(model - piece[0]).abs() for model in piece[1:]], [kept])]


@merge_method("ties", base=True, measure=measure_cut)
def ties(
    base: Tensor,
    *models: Tensor,
    weights: Weights = None,
    density: Density = 0.2,
    sign: Sign = "weighted",
    divide: Divide = "weights",
    scale: Scale = 1.0,
    known: list[float] | None = None,
) -> Tensor:
    """base + scale of the mean of the differences that agree in sign, after each kept its largest `density` (Yadav et al. 2023, alg. 1).

    Trim: the int(density n) largest of each difference, equal ones with them. Elect: a sign for each place (`sign`); a sum of
    0 counts as plus. Mean: over the sources that have that sign there (`divide`).
    """
    import torch

    cuts = known if known is not None else measure_cut(Held(base, *models), density=density)
    shares = weights if weights is not None else (1.0,) * len(models)
    deltas = []
    for model, cut in zip(models, cuts, strict=True):
        delta = model - base
        deltas.append(delta.mul_(delta.abs() >= cut) if cut > 0.0 else delta)
    plus = elected(deltas, shares, sign)
    total, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for delta, share in zip(deltas, shares, strict=True):
        signed = delta * share if sign == "weighted" else delta
        agrees = torch.where(plus, signed > 0, signed < 0)
        total.add_(delta * agrees, alpha=share)
        if divide != "none":
            divisor.add_(agrees, alpha=share if divide == "weights" else 1.0)
    if divide != "none":
        total.div_(divisor.where(divisor != 0, 1.0))
    return base.add(total, alpha=scale)


def elected(deltas: list[Tensor], shares: tuple[float, ...], sign: str) -> Tensor:
    """Where plus wins."""
    import torch

    votes = torch.zeros_like(deltas[0])
    for delta, share in zip(deltas, shares, strict=True):
        votes.add_(delta.sign() if sign == "count" else delta, alpha=share if sign == "weighted" else 1.0)
    return votes >= 0
