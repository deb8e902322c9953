"""The spectrum of an adapter's delta: how many directions of each layer hold its energy, and whether the rank is larger than that.

Singular values are those of scale B A, from QR of both factors and the SVD of the small core: exact, without making the delta.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.delta import changes_weight, tensor_fault
from registry.adapters.inspect import BLOCK
from registry.adapters.reader import Module, read_adapter
from registry.adapters.spectra import sum_spectrum
from registry.errors import Refused

if TYPE_CHECKING:
    from torch import Tensor

ENERGY = 0.9  # share of the squared Frobenius norm by which an effective rank is counted
UNUSED = 0.99  # share that half of the rank must hold for the other half to be called unused


@dataclass(frozen=True, kw_only=True)
class GroupSpectrum:
    """The layers of one block. `values`: root mean square of the layers' i-th singular values, falling."""

    name: str
    layers: int
    rank: int  # the largest of its layers
    norm: float  # Frobenius, of all layers together
    values: tuple[float, ...]
    directions: int  # the fewest of every layer that hold ENERGY of the group's energy
    half: float  # share that the first half of the rank holds

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layers": self.layers,
            "rank": self.rank,
            "norm": self.norm,
            "singular_values": list(self.values),
            "directions_90": self.directions,
            "half_rank_energy": self.half,
        }


@dataclass(frozen=True, kw_only=True)
class AdapterSpectrum:
    """An adapter by block, and as a whole under `whole`."""

    file: Path
    groups: tuple[GroupSpectrum, ...]
    whole: GroupSpectrum
    left_out: int  # modules that have no spectrum without their base

    def sentence(self) -> str:
        """Whether the rank is larger than the change needs."""
        whole = self.whole
        if whole.norm == 0:
            return "the adapter changes nothing: every singular value is 0"
        found = f"{ENERGY:.0%} of the change lies in {whole.directions} of {whole.rank} directions of each layer"
        if whole.rank == 1:
            return found
        half = f"the first {whole.rank // 2} hold {whole.half:.1%}"
        if whole.half >= UNUSED:
            return f"{found}, and {half}: the rank is larger than is used, and half of it would hold this change (loraloom lora resize)"
        return f"{found}, and {half}: the rank is in use"

    def to_json(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "sentence": self.sentence(),
            "whole": self.whole.to_json(),
            "groups": [group.to_json() for group in self.groups],
            "left_out": self.left_out,
        }


def spectrum_of(path: Path) -> AdapterSpectrum | None:
    """The spectrum of an adapter file; None where no module has one without its base. Raises BadFile, or Refused for what is damaged."""
    groups: dict[str, list[tuple[Tensor, int]]] = defaultdict(list)
    left = 0
    for module in read_adapter(path).modules:
        values = _values(module, path)
        if values is None:
            left += 1
            continue
        component, name = module.place
        block = BLOCK.search(name)
        groups[f"{component} {block[1] if block else 'other'}"].append((values, module.rank or len(values)))
    if not groups:
        return None
    found = tuple(_group(name, layers) for name, layers in groups.items())
    every = [layer for layers in groups.values() for layer in layers]
    return AdapterSpectrum(file=path, groups=found, whole=_group("all", every), left_out=left)


def _values(module: Module, path: Path) -> Tensor | None:
    """All singular values of what a module changes, float64; None for one that has none without its base."""
    if fault := tensor_fault(module):
        raise Refused(f"{path}: {module.name} cannot be read ({fault}). Is it damaged? Copy it again.")
    if module.needs_base or not changes_weight(module):
        return None
    try:
        return sum_spectrum([(module, 1.0)], lambda _values, _square: 1).values
    except (RuntimeError, ValueError, IndexError) as error:  # torch's, of factors that do not fit each other
        raise Refused(f"{path}: {module.name} has factors that do not fit each other ({error}). Is it damaged? Copy it again.") from error


def _group(name: str, layers: list[tuple[Tensor, int]]) -> GroupSpectrum:
    import torch

    rank = max(rank for _, rank in layers)
    width = max(rank, *(len(values) for values, _ in layers))
    table = torch.zeros(len(layers), width, dtype=torch.float64)
    for row, (values, _) in enumerate(layers):
        table[row, : len(values)] = values
    squares = table.square()
    energy, total = squares.sum(0).cumsum(0), float(squares.sum())
    shares = energy / total if total > 0 else torch.ones_like(energy)
    return GroupSpectrum(
        name=name,
        layers=len(layers),
        rank=rank,
        norm=math.sqrt(total),
        values=tuple(float(value) for value in squares.mean(0).sqrt()[:rank]),
        directions=int((shares >= ENERGY * (1 - 1e-12)).nonzero()[0, 0]) + 1 if total > 0 else 0,
        half=float(shares[max(1, rank // 2) - 1]),
    )
