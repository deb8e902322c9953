"""LoHa: a delta that is the product, number by number, of two low-rank matrices (Hyeon-Woo et al. 2022, FedPara, eq. 1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from train.adapters.layer import AdapterLayer, draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LoHa(AdapterLayer):
    """D = (w1_a w1_b) * (w2_a w2_b) * alpha / rank; its rank is up to the square of `rank`."""

    def __init__(self, base: Any, *, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__(base, rank=rank, scale=scale)
        columns = math.prod(self.shape[1:])
        for side in ("w1", "w2"):
            outer = self._weight(f"hada_{side}_a", self.shape[0], rank)
            inner = self._weight(f"hada_{side}_b", rank, columns)
            draw(inner, generator, 1.0)
            if side == "w1":  # w2_a begins at zero: the base unchanged
                draw(outer, generator, 0.1)

    def delta(self) -> Tensor:
        one, two = self.hada_w1_a @ self.hada_w1_b, self.hada_w2_a @ self.hada_w2_b
        found: Tensor = (one * two * self.scale).reshape(self.shape)
        return found

    def file_tensors(self) -> dict[str, Tensor]:
        return self._numbers() | self._alpha(self.scale * self.rank)
