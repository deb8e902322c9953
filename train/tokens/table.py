"""An embedding table with rows behind the base's own, which alone are trained: fp32 whatever the base's precision."""

# B batch, T tokens, V rows of the base, N new rows, D width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LongerTable(nn.Module):
    """The base's table, not trained, and new rows: ids V .. V + N - 1. Gives the base's dtype."""

    def __init__(self, own: nn.Embedding, rows: nn.Parameter) -> None:
        super().__init__()
        self.own = own.requires_grad_(False)
        self.rows = rows

    @property
    def weight(self) -> Tensor:
        """The base's rows: what asks a table for its device and dtype."""
        return self.own.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        count = self.own.num_embeddings
        new = ids >= count
        known = functional.embedding(ids.masked_fill(new, 0), self.own.weight)
        learned = functional.embedding((ids - count).clamp(min=0), self.rows).to(known.dtype)
        return torch.where(new[..., None], learned, known)
