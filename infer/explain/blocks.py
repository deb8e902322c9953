"""Where an adapter acts: the Frobenius norm of its change relative to the weights', by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infer.draw.files import Adapter
from registry.adapters.in_place import changed, layout_of, own_weights, placed
from registry.adapters.inspect import BLOCK
from registry.adapters.reader import read_adapter
from registry.family import Family
from registry.merging.adapter_blocks import Factors, blocks_of
from registry.parts import Parts


@dataclass(frozen=True, kw_only=True)
class BlockChange:
    """A block's weights that an adapter changes: how many, and norm(change) / norm(weights) over them."""

    component: str
    block: str
    weights: int
    relative: float

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return asdict(self)


def changes_by_block(
    one: Adapter, path: Path, family: Family, parts: Parts, *, on_weight: Callable[[int, int], None] = lambda done, total: None
) -> list[BlockChange]:
    """The change of an adapter at its weight, on a base without adapters; blocks in the model's order. Every kind that is drawn."""
    import torch

    from registry.quantised.linear import QuantisedLinear

    factors = Factors(one.blocks, blocks_of(layout_of(family, parts))) if one.blocks else None
    own, found = own_weights(family, parts), placed(read_adapter(path), family, parts).parts
    sums: dict[tuple[str, str], list[float]] = {}
    for done, key in enumerate([key for key in own if key in found]):
        component, _, name = key.partition("/")
        if component == family.denoiser:
            weight = one.weight * (factors.of_denoiser(name.rpartition(".")[0]) if factors else 1.0)
        else:
            weight = (one.weight if one.text_weight is None else one.text_weight) * (factors.of_text if factors else 1.0)
        held = own[key]
        original = held.made(torch.float32).cpu() if isinstance(held, QuantisedLinear) else held.detach().float().cpu()
        change = changed(original, [replace(part, weight=weight) for part in found[key]]) - original if weight else original.new_zeros(1)
        block = BLOCK.search(name.replace(".", "_"))
        row = sums.setdefault((component, block[1] if block else "other"), [0.0, 0.0, 0.0])
        for place, value in enumerate((1.0, float(change.norm()) ** 2, float(original.norm()) ** 2)):
            row[place] += value
        on_weight(done + 1, len(found))
    return [
        BlockChange(component=component, block=block, weights=int(count), relative=math.sqrt(change / weight) if weight else 0.0)
        for (component, block), (count, change, weight) in sums.items()
    ]
