"""CLIP's text side, as the families that use it share it: ids, hidden states, clip skip, token counts.

`clip_skip` is diffusers' number: None or 0 is the last layer, 1 the layer before it (A1111 and kohya call that 2).
"""

# B batch, N chunks, T tokens of a chunk, D width

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry.architectures.text.clip_chunks import MARKS, chunk_ids
from registry.architectures.text.clip_words import tokens_of
from registry.errors import Refused

if TYPE_CHECKING:
    from torch import Tensor, nn


def token_limit(tokenizer: Any, encoder: nn.Module) -> int:
    """Tokens that fit, marks included: the tokenizer's own limit, bounded by the encoder's position table (77; 32 in pocket)."""
    positions = int(encoder.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]  # transformers is untyped
    return min(int(tokenizer.model_max_length), positions)


def count_tokens(tokenizer: Any, encoder: nn.Module, prompt: str, *, chunks: int = 1) -> tuple[int, int]:
    """(tokens the prompt needs with its two marks, tokens that fit in so many chunks, two marks included)."""
    inside = token_limit(tokenizer, encoder) - MARKS
    return tokens_of(tokenizer, prompt), chunks * inside + MARKS


def clip_outputs(tokenizer: Any, encoder: nn.Module, prompts: Sequence[str], *, chunks: int = 1) -> Any:
    """The encoder's output with hidden states for prompts padded and cut to so many chunks: each state (B N, T, D)."""
    limit = token_limit(tokenizer, encoder)
    if chunks == 1:
        inputs = tokenizer(list(prompts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
        ids, own = inputs.input_ids, inputs.attention_mask
    else:
        ids, own = (tensor.flatten(0, 1) for tensor in chunk_ids(tokenizer, prompts, chunks=chunks, limit=limit))
    device = next(encoder.parameters()).device
    mask = own.to(device, ids.dtype) if getattr(encoder.config, "use_attention_mask", False) else None
    return encoder(ids.to(device), attention_mask=mask, output_hidden_states=True)


def refuse_clip_skip(clip_skip: int | None, why: str) -> None:
    """Raise Refused for a clip_skip where no layer of CLIP is read; `why` is a clause such as "Chroma has no CLIP"."""
    if clip_skip is not None:
        raise Refused(f"clip_skip is {clip_skip}, but {why}: there is no layer to skip. Leave it out.")


def check_clip_skip(clip_skip: int | None, encoder: nn.Module, *, deepest: int) -> int:
    """The layers to step back, 0..deepest; more or less is refused."""
    skip = 0 if clip_skip is None else clip_skip
    if not 0 <= skip <= deepest:
        layers = encoder.config.num_hidden_layers  # type: ignore[union-attr]  # transformers is untyped
        raise Refused(f"clip_skip is {skip}; this text encoder has {layers} layers, so 0 to {deepest} can be skipped.")
    return skip


def normed_state(outputs: Any, encoder: nn.Module, *, clip_skip: int | None) -> Tensor:
    """The hidden state `clip_skip` layers before the last, through the final norm: (B, T, D), what SD1 and SD2 are trained on."""
    skip = check_clip_skip(clip_skip, encoder, deepest=len(outputs.hidden_states) - 2)
    if skip == 0:
        return outputs.last_hidden_state  # type: ignore[no-any-return]  # transformers is untyped
    text_model: Any = getattr(encoder, "text_model", encoder)  # transformers 5 flattened CLIPTextModel, not ...WithProjection
    return text_model.final_layer_norm(outputs.hidden_states[-(skip + 1)])  # type: ignore[no-any-return]


def penultimate_state(outputs: Any, encoder: nn.Module, *, clip_skip: int | None) -> Tensor:
    """The last but one hidden state, or `clip_skip` layers before it, without the final norm: (B, T, D), what SDXL is trained on."""
    skip = check_clip_skip(clip_skip, encoder, deepest=len(outputs.hidden_states) - 3)
    return outputs.hidden_states[-(skip + 2)]  # type: ignore[no-any-return]  # transformers is untyped
