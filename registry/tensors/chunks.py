"""Chunks of one key in all sources, and measurements over them without loading a whole tensor: inner products, thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from registry.merging.method import Chunks

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor

CHUNK = 1 << 20  # elements written and hashed at a time
BLOCK = 1 << 15  # elements of arithmetic at a time, 128 KiB in fp32: in a core's cache, and small enough that the allocator keeps the
# pages of a block's many temporaries; at four times this size TIES spends two thirds of its time on page faults
# Both are fixed: sums are taken block by block and random numbers belong to blocks, whatever the memory and the threads.


class Held:
    """Tensors in memory as Chunks, for methods called directly."""

    def __init__(self, *tensors: Tensor, scratch: int = 1 << 62) -> None:
        self._tensors = [tensor.reshape(-1) for tensor in tensors]
        self.scratch = scratch
        self.shape = tuple(tensors[0].shape)

    def pick(self, *sources: int) -> Held:
        return Held(*(self._tensors[source].reshape(self.shape) for source in sources), scratch=self.scratch)

    @property
    def count(self) -> int:
        return self._tensors[0].numel()

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for begin in range(0, self.count, BLOCK):
            yield tuple(tensor[begin : begin + BLOCK] for tensor in self._tensors)


def gram(chunks: Chunks, *, against_first: bool = False) -> NDArray[numpy.float64]:
    """The matrix of inner products of the sources, in fp64; with `against_first` of their differences from the first."""
    import numpy

    total: NDArray[numpy.float64] | None = None
    for chunk in chunks:
        tensors = [tensor - chunk[0] for tensor in chunk[1:]] if against_first else list(chunk)
        columns = [tensor.reshape(-1).numpy().astype(numpy.float64) for tensor in tensors]
        products = numpy.empty((len(columns), len(columns)))
        for i, one in enumerate(columns):
            for j in range(i, len(columns)):
                products[i, j] = products[j, i] = numpy.add.reduce(one * columns[j])  # pairwise, one thread: always the same sum
        total = products if total is None else total + products
    assert total is not None, "a tensor without elements is never measured"
    return total


def kth_largest(chunks: Chunks, magnitudes: Callable[[tuple[Tensor, ...]], Tensor], ranks: Sequence[int]) -> list[float]:
    """The k-th largest of the values that `magnitudes` makes of the chunks (none negative), for every k in `ranks`, from 1 on.

    The values are collected and partitioned; above `chunks.scratch` bytes they are counted by their bits instead, in two passes.
    Both give the same value.
    """

    def column() -> Iterator[NDArray[numpy.floating]]:
        return (magnitudes(chunk).reshape(-1).numpy() for chunk in chunks)

    itemsize = magnitudes(next(iter(chunks))).element_size()
    if chunks.count * itemsize <= chunks.scratch or itemsize != 4:
        return _partitioned(chunks.count, column(), ranks)
    return [_counted(column, rank) for rank in ranks]


def _partitioned(count: int, column: Iterator[NDArray[numpy.floating]], ranks: Sequence[int]) -> list[float]:
    import numpy

    first = next(column)
    values, at = numpy.empty(count, dtype=first.dtype), len(first)
    values[:at] = first
    for chunk in column:
        values[at : at + len(chunk)] = chunk
        at += len(chunk)
    places = [count - rank for rank in ranks]
    values.partition(sorted(set(places)))
    return [float(values[place]) for place in places]


def _counted(column: Callable[[], Iterator[NDArray[numpy.floating]]], rank: int) -> float:
    """The value by its bits: non-negative floats sort like their bits as integers."""
    import numpy

    high = numpy.zeros(1 << 16, dtype=numpy.int64)
    for chunk in column():
        high += numpy.bincount(chunk.view(numpy.uint32) >> 16, minlength=1 << 16)
    before, upper = _place(high, rank)
    low = numpy.zeros(1 << 16, dtype=numpy.int64)
    for chunk in column():
        bits = chunk.view(numpy.uint32)
        low += numpy.bincount(bits[bits >> 16 == upper] & 0xFFFF, minlength=1 << 16)
    _, lower = _place(low, rank - before)
    return float(numpy.array([upper << 16 | lower], dtype=numpy.uint32).view(numpy.float32)[0])


def _place(counts: NDArray[numpy.int64], rank: int) -> tuple[int, int]:
    """(count in the bins above, bin) of the rank-th largest."""
    import numpy

    above = numpy.cumsum(counts[::-1])
    place = int(numpy.searchsorted(above, rank))
    return int(above[place - 1]) if place else 0, len(counts) - 1 - place
