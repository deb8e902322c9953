"""What quantising changed: the relative error of a model's weights, and its worst layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from registry.printable import counted


@dataclass(frozen=True)
class WeightError:
    """Of the quantised layers of one component."""

    dtypes: tuple[tuple[str, int], ...]  # dtype, layers kept in it; the most first
    error: float  # ||W' - W|| / ||W|| over all of them
    worst_layer: str
    worst: float

    def sentence(self, component: str) -> str:
        """unet: 32 layers in nf4, relative weight error 9.2 % (worst: ... 11.0 %)."""
        kept = " and ".join(f"{counted(count, 'layer')} in {dtype}" for dtype, count in self.dtypes)
        return f"{component}: {kept}, relative weight error {self.error:.2%} (worst: {self.worst_layer}, {self.worst:.2%})"

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        worst = {"layer": self.worst_layer, "error": self.worst}
        return {"layers": dict(self.dtypes), "relative_error": self.error, "worst": worst}


def weight_error(module: Any) -> WeightError | None:
    """The error of a loaded model's layers that were quantised here; None where it has none."""
    from registry.quantised.codings import Coding
    from registry.quantised.linear import QuantisedLinear

    every = {name: layer for name, layer in module.named_modules() if isinstance(layer, QuantisedLinear)}
    layers = {name: layer for name, layer in every.items() if isinstance(layer.coding, Coding)}
    if not layers:
        return None
    total = sum(layer.squared_weight for layer in layers.values())
    lost = sum(layer.squared_error for layer in layers.values())
    worst = max(layers, key=lambda name: layers[name].relative_error)
    counts = Counter(layer.dtype_name for layer in layers.values()).most_common()
    return WeightError(tuple(counts), (lost / total) ** 0.5 if total else 0.0, worst, layers[worst].relative_error)
