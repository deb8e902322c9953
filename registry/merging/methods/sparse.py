"""Differences from a base, thinned before they are added: TIES and its kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from registry.merging.method import Chunks, Density, Place, Scale, Seed, Weights, merge_method
from registry.merging.methods.linear import combination
from registry.merging.random_draws import below, uniform
from registry.options import Meaning
from registry.tensors.chunks import Held, kth_largest

if TYPE_CHECKING:
    from torch import Tensor

Sign = Annotated[
    Literal["weighted", "unweighted", "count"],
    Meaning(
        "whose sign wins a place: of the weighted sum (paper, mergekit), of the plain sum (PEFT total), of the majority (PEFT frequency)"
    ),
]
Divide = Annotated[
    Literal["weights", "count", "none"],
    Meaning("what the sum of the agreeing values is divided by: their weights (mergekit), their number (PEFT), nothing"),
]


def measure_cut(chunks: Chunks, *, density: float, **_options: object) -> list[float]:
    """The magnitude of the last value that each source keeps; 0 keeps all."""
    sources = range(1, len(next(iter(chunks))))
    if density >= 1.0:
        return [0.0 for _ in sources]
    kept = max(1, int(density * chunks.count))
    return [kth_largest(chunks.pick(0, source), magnitude, [kept])[0] for source in sources]


def magnitude(chunk: tuple[Tensor, ...]) -> Tensor:
    """|x - base|."""
    return (chunk[1] - chunk[0]).abs_()


def trimmed(delta: Tensor, cut: float) -> Tensor:
    """The values of at least this magnitude, 0 elsewhere."""
    import numpy
    import torch

    below = numpy.nextafter(delta.numpy().dtype.type(cut), 0)  # hardshrink keeps what is above its limit
    return torch.hardshrink(delta, float(below)) if cut > 0.0 else delta


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
    cuts = known if known is not None else measure_cut(Held(base, *models), density=density)
    shares = weights if weights is not None else (1.0,) * len(models)
    deltas = [trimmed(model - base, cut) for model, cut in zip(models, cuts, strict=True)]
    return base.add(agreed(deltas, shares, sign=sign, divide=divide), alpha=scale)


def agreed(deltas: list[Tensor], shares: tuple[float, ...], *, sign: str, divide: str) -> Tensor:
    """The mean of the differences that have the elected sign, place by place.

    In products with +1 and -1 instead of masks, which cost several times as much.
    """
    import torch

    side = elected(deltas, shares, sign=sign)
    total, count = torch.zeros_like(side), torch.zeros_like(side)
    for delta, share in zip(deltas, shares, strict=True):
        weighted = sign == "weighted" and share != 1.0
        agreeing = (delta * share if weighted else delta).mul(side).clamp_min_(0)
        total.add_(agreeing, alpha=1.0 if sign == "weighted" else share)
        if divide != "none":
            count.add_(agreeing.sign_(), alpha=share if divide == "weights" else 1.0)
    total.mul_(side)
    if divide == "none":
        return total
    least = 1.0 if divide == "count" else min(shares)
    if least > 0:
        return total.div_(count.clamp_min_(least))  # every place that has a value has at least this weight
    return total.div_(count.masked_fill_(count == 0, 1.0))


def elected(deltas: list[Tensor], shares: tuple[float, ...], *, sign: str) -> Tensor:
    """+1 or -1 for each place; a sum of 0 counts as plus."""
    votes = deltas[0].sign() if sign == "count" else deltas[0] * (shares[0] if sign == "weighted" else 1.0)
    for delta, share in zip(deltas[1:], shares[1:], strict=True):
        votes.add_(delta.sign() if sign == "count" else delta, alpha=share if sign == "weighted" else 1.0)
    return votes.sign_().add_(0.5).sign_()


# --- magnitudes without election


@merge_method("magnitude_prune", base=True, measure=measure_cut)
def magnitude_prune(
    base: Tensor, *models: Tensor, weights: Weights = None, density: Density = 0.2, scale: Scale = 1.0, known: list[float] | None = None
) -> Tensor:
    """base + scale sum w_i of the largest `density` of each difference (PEFT's magnitude_prune, without its rescaling)."""
    cuts = known if known is not None else measure_cut(Held(base, *models), density=density)
    deltas = [model - base for model in models]
    kept = [trimmed(delta, cut) for delta, cut in zip(deltas, cuts, strict=True)]
    return base.add(combination(kept, list(weights or (1.0,) * len(models)), spare=True), alpha=scale)


Outliers = Annotated[float, Meaning("share of the largest values that is left out as outliers", 0.0, 1.0)]


def measure_band(chunks: Chunks, *, density: float, outliers: float, **_options: object) -> list[tuple[float, float]]:
    """(least magnitude that is kept, least that is left out as an outlier) of each source; infinite: no outliers."""
    count = chunks.count
    kept, top = max(1, int(density * count)), int(outliers * count)
    last = min(count, kept + top)
    ranks = [last, top] if top else [last]
    found = [kth_largest(chunks.pick(0, source), magnitude, ranks) for source in range(1, len(next(iter(chunks))))]
    return [(values[0], values[1] if top else float("inf")) for values in found]


@merge_method("breadcrumbs", base=True, measure=measure_band)
def breadcrumbs(
    base: Tensor,
    *models: Tensor,
    weights: Weights = None,
    density: Density = 0.9,
    outliers: Outliers = 0.01,
    scale: Scale = 1.0,
    known: list[tuple[float, float]] | None = None,
) -> Tensor:
    """base + scale sum w_i of each difference's middle: its largest `outliers` are left out, the next `density` kept.

    Davari and Belilovsky 2023, as mergekit counts them.
    """
    bands = known if known is not None else measure_band(Held(base, *models), density=density, outliers=outliers)
    deltas = [model - base for model in models]
    kept = [delta * ((delta.abs() >= low) & (delta.abs() < high)) for delta, (low, high) in zip(deltas, bands, strict=True)]
    return base.add(combination(kept, list(weights or (1.0,) * len(models)), spare=True), alpha=scale)


# --- random thinning


@merge_method("dare_linear", base=True)
def dare_linear(
    base: Tensor,
    *models: Tensor,
    weights: Weights = None,
    density: Density = 0.5,
    scale: Scale = 1.0,
    seed: Seed = 0,
    at: Place | None = None,
) -> Tensor:
    """base + scale sum w_i of each difference with values dropped at random, the rest divided by `density` (Yu et al. 2024, eq. 3)."""
    kept = [_dropped(model - base, density, seed, source, at) for source, model in enumerate(models)]
    return base.add(combination(kept, list(weights or (1.0,) * len(models)), spare=True), alpha=scale)


@merge_method("dare_ties", base=True)
def dare_ties(
    base: Tensor,
    *models: Tensor,
    weights: Weights = None,
    density: Density = 0.5,
    sign: Sign = "weighted",
    divide: Divide = "none",
    scale: Scale = 1.0,
    seed: Seed = 0,
    at: Place | None = None,
) -> Tensor:
    """DARE's random drop in the place of TIES' trim, then the election of signs. Nothing is divided by default, as in mergekit."""
    kept = [_dropped(model - base, density, seed, source, at) for source, model in enumerate(models)]
    return base.add(agreed(kept, weights or (1.0,) * len(models), sign=sign, divide=divide), alpha=scale)


def _dropped(delta: Tensor, density: float, seed: int, source: int, at: Place | None) -> Tensor:
    """The difference, whose values are overwritten, thinned."""
    if density >= 1.0:
        return delta
    return delta.mul_(below(density, delta, seed=seed, source=source, at=at)).div_(density)


Spread = Annotated[float, Meaning("half the distance between the least and the largest chance of being kept", 0.0, 0.5)]


def spread_fits(**options: object) -> str | None:
    """Chances must lie in 0 .. 1."""
    density, epsilon = options["density"], options["epsilon"]
    if isinstance(density, (int, float)) and isinstance(epsilon, (int, float)) and not (density - epsilon > 0 and density + epsilon <= 1):
        return f"density {density:g} +- epsilon {epsilon:g} must stay above 0 and at most 1."
    return None


@merge_method("della", base=True, rowwise=True, check=spread_fits)
def della(
    base: Tensor,
    *models: Tensor,
    weights: Weights = None,
    density: Density = 0.5,
    epsilon: Spread = 0.1,
    sign: Sign = "weighted",
    divide: Divide = "none",
    scale: Scale = 1.0,
    seed: Seed = 0,
    at: Place | None = None,
) -> Tensor:
    """DELLA: values are kept with a chance that grows with their rank in the row, and divided by it; then signs are elected.

    Deep et al. 2024. The chance goes from density - epsilon to density + epsilon; ranks by row as in mergekit (sd-mecha: by tensor).
    """
    kept = [_by_rank(model - base, density, epsilon, seed, source, at) for source, model in enumerate(models)]
    return base.add(agreed(kept, weights or (1.0,) * len(models), sign=sign, divide=divide), alpha=scale)


def _by_rank(delta: Tensor, density: float, epsilon: float, seed: int, source: int, at: Place | None) -> Tensor:
    width = at.width if at is not None else delta.shape[-1]
    rows = delta.reshape(-1, width)
    ranks = rows.abs().argsort(dim=1, stable=True).argsort(dim=1)  # 0 is the smallest of the row
    chance = (density - epsilon) + ranks * (2 * epsilon / max(1, width - 1))
    kept = uniform(rows, seed=seed, source=source, at=at) < chance
    return (rows * kept / chance).reshape(delta.shape).to(delta.dtype)


# --- SCE


def measure_variance(chunks: Chunks, *, density: float, **_options: object) -> tuple[float, list[float]]:
    """(least variance that is kept, share of each source): the shares are those of the kept squares."""
    import numpy

    cut = 0.0
    if density < 1.0:
        (cut,) = kth_largest(chunks, _variance, [max(1, int(density * chunks.count))])
    squares = [0.0] * (len(next(iter(chunks))) - 1)
    for chunk in chunks:
        kept = _variance(chunk) >= cut
        for index, model in enumerate(chunk[1:]):
            values = ((model - chunk[0]) * kept).double().numpy()
            squares[index] += float(numpy.add.reduce(values * values, axis=None))
    whole = sum(squares)
    return cut, [square / whole for square in squares] if whole > 0 else [1 / len(squares)] * len(squares)


def _variance(chunk: tuple[Tensor, ...]) -> Tensor:
    """The variance between the differences, place by place."""
    deltas = [model - chunk[0] for model in chunk[1:]]
    mean = combination(deltas, [1 / len(deltas)] * len(deltas))
    return combination([(delta - mean).square() for delta in deltas], [1 / len(deltas)] * len(deltas))


@merge_method("sce", base=True, least=3, measure=measure_variance)
def sce(
    base: Tensor, *models: Tensor, density: Density = 0.5, scale: Scale = 1.0, known: tuple[float, list[float]] | None = None
) -> Tensor:
    """Select where the sources vary most, weigh each source by its squares there, erase minority signs (Wan et al. 2024)."""
    cut, shares = known if known is not None else measure_variance(Held(base, *models), density=density)
    kept = _variance((base, *models)) >= cut
    deltas = [(model - base) * kept for model in models]
    return base.add(agreed(deltas, tuple(shares), sign="unweighted", divide="weights"), alpha=scale)
