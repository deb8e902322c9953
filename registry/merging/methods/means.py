"""Means whose coefficients come from the inner products of whole tensors: each is a weighted sum in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any

from registry.merging.method import Chunks, Scale, Weights, merge_method
from registry.merging.methods.linear import combination
from registry.options import Meaning
from registry.tensors.chunks import Held, gram

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor

Iterations = Annotated[int, Meaning("steps of the iteration at most", 1, 10_000)]
CLOSE = 1e-7  # change of the mean at which the iteration has arrived, relative to its length
EPSILON = 1e-6  # the least distance Weiszfeld's step divides by (as in sd-mecha)


def measure_gram(chunks: Chunks, **_options: Any) -> NDArray[numpy.float64]:
    """Inner products of the sources."""
    return gram(chunks)


def measure_differences(chunks: Chunks, **_options: Any) -> NDArray[numpy.float64]:
    """Inner products of the differences from the first source."""
    return gram(chunks, against_first=True)


def normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that sum to 1."""
    shares = list(weights) if weights is not None else [1.0] * count
    return [share / sum(shares) for share in shares]


def positive(**options: object) -> str | None:
    """A mean needs weights of at least 0, not all of them 0."""
    weights = options.get("weights")
    if isinstance(weights, (list, tuple)) and (min(weights) < 0 or sum(weights) == 0):
        return "params.weights must be at least 0 and not all 0 for this mean."
    return None


@merge_method("karcher", least=2, measure=measure_gram, check=positive)
def karcher(*models: Tensor, weights: Weights = None, iterations: Iterations = 100, known: NDArray[numpy.float64] | None = None) -> Tensor:
    """The mean of the directions on the sphere, given the mean length (Karcher 1977; mergekit's karcher). Of two sources it is slerp."""
    products = known if known is not None else gram(Held(*models))
    return combination(models, karcher_shares(products, normalised(weights, len(models)), iterations))


def karcher_shares(products: NDArray[numpy.float64], weights: Sequence[float], iterations: int) -> list[float]:
    """The mean's coefficients: all steps stay in the span of the sources, so that inner products are all that is needed."""
    import numpy

    if not bool(numpy.isfinite(products).all()):
        return [math.nan] * len(weights)  # the result is then refused; a source with such numbers is not left out
    lengths = numpy.sqrt(numpy.diag(products))
    alive = [index for index, length in enumerate(lengths) if length > 0 and weights[index] > 0]
    if not alive:
        return [0.0] * len(weights)
    shares = numpy.array([weights[index] for index in alive]) / sum(weights[index] for index in alive)
    unit = products[numpy.ix_(alive, alive)] / numpy.outer(lengths[alive], lengths[alive])  # cosines
    mean = shares / math.sqrt(max(float(shares @ unit @ shares), 1e-300))
    for _ in range(iterations):
        cosines = numpy.clip(unit @ mean, -1.0, 1.0)
        angles = numpy.arccos(cosines)
        sines = numpy.sin(angles)
        pull = shares * numpy.where(sines > 1e-12, angles / numpy.where(sines > 1e-12, sines, 1.0), 1.0)
        step = pull - mean * float(pull @ cosines)
        length = math.sqrt(max(float(step @ unit @ step), 0.0))
        if length < CLOSE:
            break
        mean = mean * math.cos(length) + step * (math.sin(length) / length)
    found = [0.0] * len(weights)
    size = float(sum(weights[index] * lengths[index] for index in alive) / sum(weights[index] for index in alive))
    for index, share in zip(alive, mean, strict=True):
        found[index] = size * float(share) / float(lengths[index])
    return found


@merge_method("geometric_median", least=2, measure=measure_gram, check=positive)
def geometric_median(
    *models: Tensor, weights: Weights = None, iterations: Iterations = 100, known: NDArray[numpy.float64] | None = None
) -> Tensor:
    """The point with the least weighted sum of distances to the sources (Weiszfeld 1937): one stray source moves it little."""
    products = known if known is not None else gram(Held(*models))
    return combination(models, median_shares(products, normalised(weights, len(models)), iterations))


def median_shares(products: NDArray[numpy.float64], weights: Sequence[float], iterations: int) -> list[float]:
    """The median's coefficients, by Weiszfeld's iteration from the mean."""
    import numpy

    if not bool(numpy.isfinite(products).all()):
        return [math.nan] * len(weights)
    shares = numpy.array(weights)
    squares = numpy.diag(products)
    for _ in range(iterations):
        towards = products @ shares
        distances = numpy.sqrt(numpy.maximum(float(shares @ towards) - 2 * towards + squares, 0.0))
        pull = numpy.array(weights) / numpy.maximum(distances, EPSILON)
        moved = pull / pull.sum()
        arrived = float(numpy.abs(moved - shares).max()) < CLOSE
        shares = moved
        if arrived:
            break
    return [float(share) for share in shares]


@merge_method("model_stock", base=True, least=3, measure=measure_differences)
def model_stock(base: Tensor, *models: Tensor, scale: Scale = 1.0, known: NDArray[numpy.float64] | None = None) -> Tensor:
    """t mean(x) + (1 - t) base, t = N cos / (1 + (N - 1) cos), cos the mean over all pairs of differences (Jang et al. 2024, eq. 2).

    All pairs as in mergekit; sd-mecha takes neighbouring pairs only. A mean cosine below 0 gives t = 0, the base.
    """
    import numpy

    products = known if known is not None else gram(Held(base, *models), against_first=True)
    count = len(models)
    cosines = [
        float(products[i, j]) / length if (length := math.sqrt(float(products[i, i] * products[j, j]))) > 0 else 0.0
        for i, j in combinations(range(count), 2)
    ]
    cosine = sum(cosines) / len(cosines) if bool(numpy.isfinite(products).all()) else math.nan  # the result is then refused, not the base
    cosine = 0.0 if cosine < 0 else cosine
    share = scale * count * cosine / (1 + (count - 1) * cosine)
    return base + combination([model - base for model in models], [share / count] * count)
