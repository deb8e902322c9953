"""What an adapter adds to a layer's weight, made when it is looked at: the products of all layers take more than a quantised model.

Those of factors are made in pieces of a layer, others a layer at a time.
"""

# O out-width, I in-width

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20  # numbers made at once: 4 MiB of fp32
Make = Callable[[slice], "Tensor"]  # some of the rows


@dataclass(frozen=True)
class Delta:
    """A change (O, I) or (O, I, kh, kw) in fp32 on the CPU; nothing of it is kept but what `begin` holds."""

    begin: Callable[[], Make]  # for one look; what that holds is in memory as long
    shape: tuple[int, ...]
    size: float = 0.0  # the weight's largest number where the change is a difference of weights

    @property
    def change(self) -> Tensor:
        """All of it, computed at each look."""
        return self.begin()(slice(None))

    @property
    def is_zero(self) -> bool:
        """Whether nothing is added."""
        make = self.begin()
        return not any(bool(make(rows).any()) for rows in self.pieces())

    def on(self, _weight: Callable[[], Tensor]) -> Delta:
        """What is added to a weight: this, whatever it is."""
        return self

    def pieces(self) -> Iterator[slice]:
        """The rows, so many at a time as make PIECE numbers."""
        step = max(1, PIECE // max(1, math.prod(self.shape[1:])))
        return (slice(begin, begin + step) for begin in range(0, self.shape[0], step))

    def compare(self, other: Delta) -> tuple[float, float]:
        """The largest number of this one, and of the difference to another of as many numbers; NaN where there is one."""
        largest = apart = 0.0
        make, others = self.begin(), other.begin()
        for rows in self.pieces():
            own = make(rows)
            largest = _larger(largest, _absolute(own))
            apart = _larger(apart, _absolute(others(rows).reshape(own.shape).sub(own)))
        return largest, apart


@dataclass(frozen=True)
class DeltaOfWeight:
    """A change that is made of the weight too (O, I, ...), fp32 on the CPU, which is not kept."""

    make: Callable[[Tensor], Make]
    shape: tuple[int, ...]

    def on(self, weight: Callable[[], Tensor]) -> Delta:
        """What is added to a weight, which is asked for at each look."""
        return Delta(lambda: self.make(weight()), self.shape)

    def trained_on(self, weight: Tensor) -> TrainedDelta:
        """The change of this weight, to be kept without it."""
        is_zero, size = self.on(lambda: weight).is_zero, _absolute(weight)
        return TrainedDelta(self, self.shape, is_zero=is_zero, size=size, digest=_digest(weight))


@dataclass(frozen=True)
class TrainedDelta:
    """A change that can be made again of the weight that was trained on, and of no other."""

    of_weight: DeltaOfWeight
    shape: tuple[int, ...]
    is_zero: bool
    size: float
    digest: str

    def on(self, weight: Callable[[], Tensor]) -> Delta:
        """The change. Looking at it raises JobFailed where the weight is another one."""

        def begin() -> Make:
            found = weight()
            if _digest(found) != self.digest:
                raise JobFailed("A weight of the base is not the one that was trained on. Did its files change meanwhile?")
            return self.of_weight.make(found)

        return Delta(begin, self.shape, self.size)


def _digest(weight: Tensor) -> str:
    from blake3 import blake3

    numbers: Any = weight.contiguous().view(-1).numpy().view("uint8")
    return blake3(numbers).hexdigest()


def of_whole(make: Callable[[], Tensor], shape: tuple[int, ...]) -> Delta:
    """A change that is made as a whole."""
    return Delta(lambda: partial(_rows_of, make()), shape)


def of_dora(product: Delta, magnitude: Tensor, shape: tuple[int, ...]) -> DeltaOfWeight:
    """What a DoRA of this product P and magnitudes m (O numbers) adds to a weight W: m V / |V| - W with V = W + P, each row by itself."""
    return DeltaOfWeight(lambda weight: partial(_dora, weight, product.begin(), magnitude.flatten()), shape)


def of_factors(up: Tensor, down: Tensor, scale: float = 1.0) -> Delta:
    """`scale` B A of factors B (O, r, ...) and A (r, I, ...), fp32."""
    return Delta(lambda: partial(_product, up.flatten(1), down, scale), (up.shape[0], *down.shape[1:]))


def _rows_of(change: Tensor, rows: slice) -> Tensor:
    return change[rows]


def _product(up: Tensor, down: Tensor, scale: float, rows: slice) -> Tensor:
    return (up[rows] @ down.flatten(1)).mul_(scale).reshape(-1, *down.shape[1:])


def _dora(weight: Tensor, product: Make, magnitude: Tensor, rows: slice) -> Tensor:
    own = weight[rows]
    changed = own + product(rows).reshape(own.shape)
    factors = (magnitude[rows] / changed.flatten(1).norm(dim=1)).reshape(-1, *[1] * (own.ndim - 1))
    found: Tensor = changed * factors - own
    return found


def _absolute(numbers: Tensor) -> float:
    return float(numbers.abs().max()) if numbers.numel() else 0.0


def _larger(one: float, other: float) -> float:
    """The larger; NaN is larger than all."""
    return other if other > one or math.isnan(other) else one
