"""Conditionings of several prompts as one batch."""

# B batch, T tokens, D width

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.errors import JobFailed

if TYPE_CHECKING:
    from torch import Tensor

    from registry.family import Conditioning


def stacked(states: Sequence[Conditioning]) -> Conditioning:
    """One batch; states of several lengths are padded at the end, where a mask says so. Raises JobFailed where none does."""
    import torch

    batch: Conditioning = {}
    for key in states[0]:
        rows = [state[key] for state in states]
        lengths = {row.shape[1] for row in rows if row.ndim > 1}
        if len(lengths) > 1:
            if not any(row.dtype == torch.bool for row in states[0].values()):
                raise JobFailed(
                    f"Prompts of several lengths without a mask cannot share a batch ({key}: {sorted(lengths)}). Set batch_size=1."
                )
            rows = [_padded(row, max(lengths)) for row in rows]
        batch[key] = torch.cat(rows)
    return batch


def _padded(row: Tensor, length: int) -> Tensor:
    """(B, T, ...) -> (B, length, ...), zeros (False in a mask) behind."""
    import torch

    return torch.nn.functional.pad(row, (0, 0) * (row.ndim - 2) + (0, length - row.shape[1]))
