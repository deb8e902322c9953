"""The size of the adapter's change: the Frobenius norm of what it adds to the weights, relative to the weights' own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from train.adapters.norms import change_norms
from train.loop.probes import Found
from train.loop.step import TrainState
from train.lora import inside_of

LARGEST = 3  # layers that are named


@dataclass
class DeltaNorm:
    """The measure; the norms of the base's weights are taken once."""

    weights: dict[str, float] = field(default_factory=dict)

    def measure(self, state: TrainState, *, model: Any, found: Found) -> dict[str, Any]:
        """{"delta": over all layers, "delta_layers": {layer: its own, the largest first}}."""
        with state.evaluating():
            own = dict(self._layers(state.modules))
        changed, weights = (math.fsum(norm[side] ** 2 for norm in own.values()) for side in (0, 1))
        shares = {name: change / weight for name, (change, weight) in own.items() if weight > 0}
        largest = sorted(shares, key=lambda name: (-shares[name], name))[:LARGEST]
        return {"delta": math.sqrt(changed / weights) if weights else 0.0, "delta_layers": {name: shares[name] for name in largest}}

    def _layers(self, modules: Mapping[str, Any]) -> Iterator[tuple[str, tuple[float, float]]]:
        for component, module in modules.items():
            for inner, weight, change in change_norms(module):
                name = f"{component}.{inside_of(component, module)}{inner}"
                if name not in self.weights:
                    self.weights[name] = float(weight.detach().float().norm())
                yield name, (change, self.weights[name])


def sentence(row: Mapping[str, Any]) -> str | None:
    """The adapter changes the weights by 2.1 % of their norm, most unet.x (8.0 %); None where it was not measured."""
    if "delta" not in row:
        return None
    name, share = next(iter(row["delta_layers"].items()), (None, 0.0))
    most = "" if name is None else f", most {name} ({percent(share)})"
    return f"the adapter changes the weights by {percent(row['delta'])} of their norm{most}"


def percent(share: float) -> str:
    """12%, 1.2%, 0.012%."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"
