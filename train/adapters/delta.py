"""What an adapter adds to a layer's weight, made in pieces: the products of wide layers are larger than what a quantised model takes."""

# O out-width, I in-width

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20  # numbers made at once: 4 MiB of fp32


@dataclass(frozen=True)
class Delta:
    """A change (O, I) or (O, I, kh, kw) in fp32 on the CPU; nothing of it is kept but what `make` holds."""

    make: Callable[[slice], Tensor]  # some of the rows
    shape: tuple[int, ...]
    size: float = 0.0  # the weight's largest number where the change is a difference of weights

    @property
    def change(self) -> Tensor:
        """All of it, computed at each look."""
        return self.make(slice(None))

    @property
    def is_zero(self) -> bool:
        """Whether nothing is added."""
        return not any(bool(self.make(rows).any()) for rows in self.pieces())

    def pieces(self) -> Iterator[slice]:
        """The rows, so many at a time as make PIECE numbers."""
        step = max(1, PIECE // max(1, math.prod(self.shape[1:])))
        return (slice(begin, begin + step) for begin in range(0, self.shape[0], step))

    def compare(self, other: Delta) -> tuple[float, float]:
        """The largest number of this one, and of the difference to another of as many numbers; NaN where there is one."""
        largest = apart = 0.0
        for rows in self.pieces():
            own = self.make(rows)
            largest = _larger(largest, _absolute(own))
            apart = _larger(apart, _absolute(other.make(rows).reshape(own.shape).sub(own)))
        return largest, apart


def of_tensor(change: Tensor, size: float = 0.0) -> Delta:
    """A change that lies in memory."""
    return Delta(partial(_rows_of, change), tuple(change.shape), size)


def of_factors(up: Tensor, down: Tensor, scale: float = 1.0) -> Delta:
    """`scale` B A of factors B (O, r, ...) and A (r, I, ...), fp32."""
    return Delta(partial(_product, up.flatten(1), down, scale), (up.shape[0], *down.shape[1:]))


def _rows_of(change: Tensor, rows: slice) -> Tensor:
    return change[rows]


def _product(up: Tensor, down: Tensor, scale: float, rows: slice) -> Tensor:
    return (up[rows] @ down.flatten(1)).mul_(scale).reshape(-1, *down.shape[1:])


def _absolute(numbers: Tensor) -> float:
    return float(numbers.abs().max()) if numbers.numel() else 0.0


def _larger(one: float, other: float) -> float:
    """The larger; NaN is larger than all."""
    return other if other > one or math.isnan(other) else one
