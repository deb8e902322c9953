"""The order of training: which items make a batch and which batches make a step, by count, from the seed alone.

Items of one size are one endless order of shuffled epochs, cut in batches that may reach into the next epoch. Items of several sizes
are cut in batches of one size in every epoch, the last of each size as short as it is, and the batches shuffled: every image is trained
on as often as any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from train.config import TrainConfig
from train.data.buckets import Bucket
from train.data.items import Item
from train.loop.rng import shuffled


@dataclass(frozen=True)
class Batch:
    """Items of one size that make one pass of one process, and their places among all images of the step."""

    items: tuple[int, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """The endless order of batches. `repeats`: how often an epoch shows each item; `groups`: the items of each size."""

    seed: int
    groups: tuple[tuple[int, ...], ...]
    batch_size: int
    accumulate: int = 1
    processes: int = 1
    _epochs: dict[int, list[tuple[int, ...]]] = field(default_factory=dict, init=False, compare=False, repr=False)  # the two last used

    @cached_property
    def occurrences(self) -> int:
        """Images of one epoch."""
        return sum(map(len, self.groups))

    @cached_property
    def batches(self) -> int:
        """Batches of one epoch, of several sizes."""
        return sum(math.ceil(len(group) / self.batch_size) for group in self.groups)

    def batch(self, number: int) -> tuple[int, ...]:
        """The items of a batch, from 0 without end."""
        if len(self.groups) == 1:
            group = self.groups[0]
            first = number * self.batch_size
            places = range(first, first + self.batch_size)
            return tuple(group[shuffled(("order", self.seed, place // len(group)), len(group))[place % len(group)]] for place in places)
        epoch, place = divmod(number, self.batches)
        if epoch not in self._epochs:
            for old in list(self._epochs)[:-1]:
                del self._epochs[old]
            self._epochs[epoch] = self._mixed(epoch)
        return self._epochs[epoch][place]

    def _mixed(self, epoch: int) -> list[tuple[int, ...]]:
        """The batches of an epoch in their order."""
        batches: list[tuple[int, ...]] = []
        for number, group in enumerate(self.groups):
            mixed = [group[place] for place in shuffled(("order", self.seed, epoch, number), len(group))]
            batches += [tuple(mixed[begin : begin + self.batch_size]) for begin in range(0, len(mixed), self.batch_size)]
        return [batches[place] for place in shuffled(("batches", self.seed, epoch), len(batches))]

    def step(self, step: int) -> list[list[Batch]]:
        """The batches of a step, from 0: those of each process in the first pass, in the second, ..."""
        share = self.accumulate * self.processes
        found: list[Batch] = []
        place = 0
        for number in range(step * share, (step + 1) * share):
            items = self.batch(number)
            found.append(Batch(items, tuple(range(place, place + len(items)))))
            place += len(items)
        return [found[turn * self.processes : (turn + 1) * self.processes] for turn in range(self.accumulate)]

    @property
    def epoch_steps(self) -> float:
        """Steps of an epoch."""
        share = self.accumulate * self.processes
        return self.occurrences / (self.batch_size * share) if len(self.groups) == 1 else self.batches / share

    def steps_for(self, epochs: float) -> int:
        """The least number of steps that shows each item so often."""
        share = self.accumulate * self.processes
        if len(self.groups) == 1:
            return max(1, math.ceil(epochs * self.occurrences / (self.batch_size * share)))
        return max(1, math.ceil(epochs * self.batches / share))


def order_of(config: TrainConfig, items: Sequence[Item], *, processes: int) -> Order:
    """The order of these items, those of one size together, each as often in an epoch as its image is repeated."""
    groups: dict[Bucket, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(item.bucket, []).extend([number] * item.sample.repeats)
    return Order(config.seed, tuple(map(tuple, groups.values())), config.batch_size, config.accumulate, processes)
