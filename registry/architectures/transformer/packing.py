"""Latents as the tokens of a transformer: each 2 x 2 patch of cells is one token, with the position (0, row, column)."""

# B batch, C channels, H W latent size, N packed tokens (H/2 * W/2), A axes of a position

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, 4C): each 2 x 2 patch of cells is one token."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: Tensor, *, like: Tensor) -> Tensor:
    """(B, N, 4C) -> (B, C, H, W) of `like`."""
    b, c, h, w = like.shape
    return tokens.view(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def position_ids(rows: int, columns: int, *, like: Tensor, axes: int = 3) -> Tensor:
    """(rows * columns, A): 0, row and column of each token, zeros on the axes after them; dtype and device of `like`."""
    import torch

    ids = like.new_zeros(rows, columns, axes)
    ids[..., 1] += torch.arange(rows, device=like.device)[:, None]
    ids[..., 2] += torch.arange(columns, device=like.device)
    return ids.view(rows * columns, axes)


def packed_tokens(height: int, width: int, *, factor: int) -> int:
    """N for an image of so many pixels, with `factor` pixels a latent cell."""
    return (height // (2 * factor)) * (width // (2 * factor))
