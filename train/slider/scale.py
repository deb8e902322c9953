"""The weight of the adapter that is trained: turned to another factor for a forward, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from train.adapters.attach import ADAPTER


@dataclass
class AdapterScale:
    """The factor on the adapter of these modules beside its own alpha / rank: 1 is as it is saved, -1 its exact opposite."""

    modules: Mapping[str, Any]
    factor: float = 1.0
    _own: list[tuple[dict[str, float], float]] = field(default_factory=list)  # each layer's scaling, and its alpha / rank

    @contextmanager
    def at(self, factor: float) -> Iterator[None]:
        """This factor inside the block. Backward must run inside too where activations are recomputed, or after `recompute`."""
        before = self.factor
        self._turn(factor)
        try:
            yield
        finally:
            self._turn(before)

    def _turn(self, factor: float) -> None:
        for scaling, own in self._layers():
            scaling[ADAPTER] = own * factor
        self.factor = factor

    def _layers(self) -> list[tuple[dict[str, float], float]]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        if not self._own:
            layers = (layer for module in self.modules.values() for layer in module.modules() if isinstance(layer, BaseTunerLayer))
            scalings: list[Any] = [layer.scaling for layer in layers]
            self._own = [(scaling, scaling[ADAPTER]) for scaling in scalings if ADAPTER in scaling]
        return self._own

    def recompute(self) -> None:
        """Gradient checkpointing of diffusers' models that recomputes a block at the factor that its forward had."""
        from torch.utils.checkpoint import checkpoint

        def run(block: Any, *inputs: Any) -> Any:
            factor = self.factor
            return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), self.at(factor)))

        for module in self.modules.values():
            module.enable_gradient_checkpointing(run)
