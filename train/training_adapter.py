"""A training adapter: fused into the base while training, out of it whenever something is drawn, measured or proven.

On a few-step build the usual loss first teaches the slow path again, and the LoRA learns that with its subject. An adapter that has this
path already, in the weights while training, leaves only the subject to learn; without it the few steps are there again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.adapters.in_place import WeightChanges, placed
from registry.adapters.reader import Adapter, read_adapter
from registry.errors import FamilyMismatch, NotFound, Refused
from registry.family import Family
from registry.parts import Parts
from registry.record import Record
from registry.tensors.finite import number_faults
from train.plan.base import Base

if TYPE_CHECKING:
    from registry.store import Store

NAME = "training"  # among the changes of the weights


@dataclass(frozen=True)
class TrainingAdapter:
    """A training adapter as it was found."""

    record: Record
    adapter: Adapter

    @property
    def path(self) -> Path:
        return self.adapter.path


def find_training_adapter(reference: str, base: Base, parts: Parts, store: Store) -> TrainingAdapter:
    """The adapter that `adapter.training` names. Raises NotFound, FamilyMismatch, or Refused for one that does not fit the base.

    `parts` may be on the meta device: shapes decide.
    """
    record = store.find(reference, kind="adapter")
    if record.path is None:
        raise NotFound(f"adapter.training={reference}: {record.name} is registered, but its file is not known to this machine.")
    if record.family is not None and record.family != base.family.name:
        raise FamilyMismatch(
            f"adapter.training={reference} is an adapter for {record.family}, and {base.name} is {base.family.name}."
            f" Give a training adapter for {base.family.title}."
        )
    adapter = read_adapter(record.path)
    others = placed(adapter, base.family, parts).components - {base.family.denoiser}
    if others:
        raise Refused(
            f"adapter.training={reference} changes {' and '.join(sorted(others))} too. Prompts are encoded once, with the text encoders"
            f" that images are drawn with: give an adapter of the {base.family.denoiser} alone."
        )
    if wrong := number_faults(adapter.path):
        raise Refused(f"adapter.training={reference} cannot be trained on: {' '.join(wrong)}")
    return TrainingAdapter(record, adapter)


@dataclass(frozen=True)
class FusedAdapter:
    """A training adapter in the weights of a loaded base."""

    changes: WeightChanges

    @contextmanager
    def out(self, *, before: Callable[[], None] = lambda: None) -> Iterator[None]:
        """The base's own weights inside the block, bit for bit. `before` is called each time before weights are written."""
        before()
        self.changes.set_weights({})
        try:
            yield
        finally:
            before()
            self.changes.set_weights({NAME: 1.0})


def fuse(found: TrainingAdapter, family: Family, parts: Parts) -> FusedAdapter:
    """Put the adapter into the weights of the denoiser, which must have no other adapter yet."""
    changes = WeightChanges(family, parts)
    changes.attach(NAME, found.adapter)
    changes.set_weights({NAME: 1.0})
    return FusedAdapter(changes)
