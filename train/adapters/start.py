"""An adapter to continue from (`lora.start`): the start of the one that is trained, of the same rank or of another."""

# R rank wanted, r rank of the file, I in-width, O out-width

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.in_place import placed
from registry.adapters.reader import read_adapter
from registry.adapters.writer import Pair
from registry.converting.adapter_layers import adapter_layers
from registry.converting.respelling import respelled
from registry.errors import FamilyMismatch, Faults, NotFound, Refused
from registry.family import Family
from registry.formats.dialects import writing_of
from registry.parts import Parts
from registry.printable import counted, some
from registry.record import Record
from registry.tensors.finite import number_faults
from train.plan.base import Base

if TYPE_CHECKING:
    from torch import Tensor

    from registry.store import Store

DIALECT = "diffusers"
LISTED = 4


@dataclass(frozen=True)
class StartAdapter:
    """An adapter as it was found: its factors by `<component>.<module>`, and what a smaller rank loses."""

    record: Record
    path: Path
    pairs: Mapping[str, Pair] = field(repr=False)
    ranks: frozenset[int]
    lost: float  # relative error of all its products at the ranks that are trained, 0 where these are not smaller
    fresh: int  # layers that are trained and that it does not change: they begin without effect

    def sentence(self) -> str:
        """What it is and what becomes of it."""
        ranks = " and ".join(map(str, sorted(self.ranks)))
        more = [f"{self.lost:.1%} of it is lost by the smaller rank"] if self.lost else []
        more += [f"{counted(self.fresh, 'layer')} that it does not change begin without effect"] if self.fresh else []
        return "; ".join([f"{self.record.name} (rank {ranks}, {counted(len(self.pairs), 'layer')})", *more])


def find_start(reference: str, base: Base, parts: Parts, ranks: Mapping[str, int], store: Store) -> StartAdapter:
    """The adapter that `lora.start` names. `ranks`: that of each layer that is trained, by `<component>.<module>` as files name it.

    Raises NotFound, FamilyMismatch, Refused, or Faults for one that does not fit; `parts` may be on the meta device.
    """
    record = store.find(reference, kind="adapter")
    if record.path is None:
        raise NotFound(f"lora.start={reference}: {record.name} is registered, but its file is not known to this machine.")
    if record.family is not None and record.family != base.family.name:
        raise FamilyMismatch(f"lora.start={reference} is an adapter for {record.family}, and {base.name} is {base.family.name}.")
    adapter = read_adapter(record.path)
    placed(adapter, base.family, parts)  # names and shapes
    if wrong := number_faults(adapter.path):
        raise Refused(f"lora.start={reference} cannot be continued: {' '.join(wrong)}")
    pairs = _pairs(reference, Path(record.path), base.family, base.path)
    outside = sorted(pairs.keys() - ranks.keys())
    if outside:
        raise Refused(
            f"lora.start={reference} changes {counted(len(outside), 'layer')} that are not trained "
            f"here: {some(outside, LISTED)}. They would be lost:"
            " give lora.targets, and lora.text_encoder where it is one of these, that cover them."
        )
    lost = _lost({name: pair for name, pair in pairs.items() if pair.rank > ranks[name]}, pairs, ranks)
    used = frozenset(pair.rank for pair in pairs.values())
    return StartAdapter(record, Path(record.path), pairs, used, lost, len(ranks.keys() - pairs.keys()))


def _pairs(reference: str, path: Path, family: Family, base: Path) -> dict[str, Pair]:
    """The adapter's factors in the names of diffusers. Raises Faults for what is no plain LoRA."""
    adapter = read_adapter(path)
    spelled = respelled(adapter_layers(adapter, family.adapter_names, base=base), family, DIALECT)
    found = {module.name: module.pair for module in spelled.modules if module.pair is not None}
    other = [module.name for module in spelled.modules if module.pair is None]
    other += [name for name, pair in found.items() if pair.dora is not None or pair.bias is not None]
    if other or adapter.left:
        raise Faults(
            f"lora.start={reference} is no plain LoRA, which alone can be continued. Make one of it: loraloom lora resize. These are not:",
            [*other[:LISTED], *list(adapter.left)[:LISTED]],
        )
    return found


def _lost(cut: Mapping[str, Pair], pairs: Mapping[str, Pair], ranks: Mapping[str, int]) -> float:
    """Relative error (Frobenius) of all products when these are cut to their ranks."""
    if not cut:
        return 0.0
    values = {name: _singular(pair)[1] * pair.scale for name, pair in pairs.items()}
    total = math.fsum(float((value**2).sum()) for value in values.values())
    gone = math.fsum(float((values[name][ranks[name] :] ** 2).sum()) for name in cut)
    return math.sqrt(gone / total) if total else 0.0


def _singular(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition of up @ down, without their product: U (O, r), S (r,), V^T (r, I...)."""
    import torch

    up, down = pair.up.double().flatten(1), pair.down.double().flatten(1)
    left, upper = torch.linalg.qr(up)  # (O, r), (r, r)
    right, lower = torch.linalg.qr(down.mT)  # (I, r), (r, r)
    u, s, v = torch.linalg.svd(upper @ lower.mT, full_matrices=False)
    return left @ u, s, v @ right.mT


def start_tensors(found: StartAdapter, own: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """The weights to begin with, in the keys of `own`: those that were drawn, as far as the adapter does not set them.

    The product of each layer is the adapter's: exactly at its rank and above, the nearest one of the rank below it (Eckart & Young 1936).
    `scales`: what the product of a layer is multiplied by.
    """
    writing = writing_of(DIALECT)
    tensors = dict(own)
    for name, pair in found.pairs.items():
        down, up = f"{name}{writing.down}", f"{name}{writing.up}"
        tensors[down], tensors[up] = _fitted(pair, own[down], own[up], pair.scale / scales[name])
    return tensors


def _fitted(pair: Pair, down: Tensor, up: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """(A (R, I...), B (O, R...)) whose product is factor x the pair's; `down` and `up` are those that were drawn."""
    import torch

    wanted = down.shape[0]
    if pair.rank <= wanted:
        new_down, new_up = down.clone(), torch.zeros_like(up)
        new_down[: pair.rank] = pair.down.float().reshape(pair.rank, *down.shape[1:])
        new_up[:, : pair.rank] = (pair.up.float() * factor).reshape(up.shape[0], pair.rank, *up.shape[2:])
        return new_down, new_up
    u, s, v = _singular(pair)
    root = (s[:wanted] * factor).sqrt()
    return (root[:, None] * v[:wanted]).float().reshape(down.shape), (u[:, :wanted] * root).float().reshape(up.shape)


def named(found: Any, store: Store) -> dict[str, str]:
    """An adapter that a run uses, by name, path and hash: a StartAdapter or a TrainingAdapter."""
    return {"name": found.record.name, "path": str(found.path), "sha256": store.sha256(found.record)}
