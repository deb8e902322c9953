"""Prompts of the models whose text is CLIP's alone: one encoder's normed state, or the concatenated penultimate states of all."""

# B batch, T tokens of all chunks, D width, P pooled width

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.architectures.text.clip import clip_outputs, count_tokens, normed_state, penultimate_state
from registry.architectures.text.clip_chunks import in_one_row, of_first_chunk
from registry.architectures.text.weighted import EMPHASIS, Emphasis, WeightedText, same_length, weighted_chunks, weighted_states
from registry.family_defaults import repeated
from registry.parts import Conditioning, Parts

if TYPE_CHECKING:
    from torch import Tensor, nn


def encode_one(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D)}: the only encoder's state through its final norm, as SD 1 and SD 2 have it; prompts are cut to what fits."""
    encoder = parts.text_encoders["text_encoder"]
    outputs = clip_outputs(parts.tokenizers["tokenizer"], encoder, prompts, chunks=parts.prompt_chunks)
    return {"embeds": in_one_row(normed_state(outputs, encoder, clip_skip=clip_skip), parts.prompt_chunks)}


def encode_beside(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D1 + D2), "pooled": (B, P)}: the encoders' penultimate states, and the last one's projection.

    `clip_skip` counts from the last but one state, as in diffusers: None is what SDXL was trained on.
    """
    import torch

    chunks = parts.prompt_chunks
    outputs = [clip_outputs(tokenizer, encoder, prompts, chunks=chunks) for tokenizer, encoder in _pairs(parts)]
    states = [
        penultimate_state(out, encoder, clip_skip=clip_skip) for out, encoder in zip(outputs, parts.text_encoders.values(), strict=True)
    ]
    return {"embeds": in_one_row(torch.cat(states, dim=-1), chunks), "pooled": of_first_chunk(outputs[-1].text_embeds, chunks)}


def weighted_one(parts: Parts, texts: Sequence[WeightedText], *, dialect: str, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, N T, D)} of the weighted texts of one prompt, in as many chunks as the longest needs; else as `encode_one`."""
    (pair,) = _pairs(parts)
    states, _ = _weighted(pair, texts, EMPHASIS[dialect], partial(normed_state, clip_skip=clip_skip))
    return {"embeds": states}


def weighted_beside(parts: Parts, texts: Sequence[WeightedText], *, dialect: str, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, N T, D1 + D2), "pooled": (B, P)}; else as `weighted_one` and `encode_beside`. The pooled state has no weights."""
    import torch

    emphasis, state = EMPHASIS[dialect], partial(penultimate_state, clip_skip=clip_skip)
    most = max(len(weighted_chunks(*pair, text.pieces, emphasis)) for pair in _pairs(parts) for text in texts)
    found = [_weighted(pair, texts, emphasis, state, at_least=most) for pair in _pairs(parts)]
    return {"embeds": torch.cat([states for states, _ in found], dim=-1), "pooled": found[-1][1].text_embeds}


def _weighted(
    pair: tuple[Any, nn.Module], texts: Sequence[WeightedText], emphasis: Emphasis, state: Callable[..., Tensor], *, at_least: int = 1
) -> tuple[Tensor, Any]:
    chunks = same_length([weighted_chunks(*pair, text.pieces, emphasis) for text in texts], at_least=at_least)
    return weighted_states(*pair, chunks, emphasis, state, counts=[text.count for text in texts])


def encode_zeros(parts: Parts, count: int) -> Conditioning:
    """Zeros for both states where the pipeline's config has force_zeros_for_empty_prompt, else the encoding of ""."""
    import torch

    conditioning = encode_beside(parts, [""])
    if parts.config.get("force_zeros_for_empty_prompt", True):
        conditioning = {key: torch.zeros_like(value) for key, value in conditioning.items()}
    return repeated(conditioning, count)


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(tokens the prompt needs with its two marks, tokens that fit), in the encoder that cuts most of it."""
    counts = [count_tokens(tokenizer, encoder, prompt, chunks=parts.prompt_chunks) for tokenizer, encoder in _pairs(parts)]
    return max(counts, key=lambda count: count[0] - count[1])


def _pairs(parts: Parts) -> list[tuple[Any, nn.Module]]:
    """Each tokenizer with the encoder it feeds."""
    return list(zip(parts.tokenizers.values(), parts.text_encoders.values(), strict=True))
