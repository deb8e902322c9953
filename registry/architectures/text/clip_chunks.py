"""Prompts longer than CLIP's context, in chunks: each has its own BOS and EOS and is encoded by itself, the states one after another.

A1111, ComfyUI and compel keep every state of a chunk, its BOS and EOS too (77 N tokens); sd-scripts drops the inner ones (75 N + 2).
All take the pooled state of the first chunk. A prompt is cut at every 75 tokens, as in sd-scripts: A1111 moves the words behind a
comma of a chunk's last 20 tokens into the next one, ComfyUI and compel do not cut a word.
"""

# B batch, N chunks, T tokens of a chunk, D width

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MARKS = 2  # BOS and EOS
MOST = 32  # chunks: 2,400 tokens


def chunk_ids(tokenizer: Any, prompts: Sequence[str], *, chunks: int, limit: int) -> tuple[Tensor, Tensor]:
    """(ids (B, N, T), mask (B, N, T) bool), T = limit: BOS, at most T - 2 tokens, EOS, then padding; what is more is truncated."""
    import torch

    inside, pad = limit - MARKS, tokenizer.pad_token_id
    rows, lengths = [], []  # of all chunks
    for prompt in prompts:
        bos, *ids, eos = tokenizer(prompt, truncation=False, verbose=False).input_ids
        for first in range(0, chunks * inside, inside):
            part = ids[first : first + inside]
            rows.append([bos, *part, eos, *[pad] * (inside - len(part))])
            lengths.append(len(part) + MARKS)
    mask = torch.arange(limit) < torch.tensor(lengths)[:, None]
    shape = (len(prompts), chunks, limit)
    return torch.tensor(rows).reshape(shape), mask.reshape(shape)


def in_one_row(states: Tensor, chunks: int) -> Tensor:
    """(B N, T, D) -> (B, N T, D): the chunks of a prompt one after another."""
    return states.reshape(-1, chunks * states.shape[1], states.shape[2])


def of_first_chunk(pooled: Tensor, chunks: int) -> Tensor:
    """(B N, P) -> (B, P)."""
    return pooled[::chunks]


def chunks_needed(needs: int, fits: int, *, chunks: int) -> int:
    """The chunks that read all of a prompt of `needs` tokens, where `fits` is what `chunks` of them hold; BOS and EOS are in both."""
    return max(1, math.ceil((needs - MARKS) / ((fits - MARKS) // chunks)))
