"""Language models as text encoders (Qwen, Gemma, Mistral): a template around the prompt, ids with their mask, hidden states.

Prompts differ in length, so a mask always goes with the states: a batch is padded by it, and padding is never attended.
 `hidden_states[0]` are the embeddings, `[-1]` is the last layer after the final norm.
"""

# B batch, T tokens, D width

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def chat_texts(tokenizer: Any, prompts: Sequence[str], **options: bool) -> list[str]:
    """Each prompt as a user's message in the tokenizer's own chat template, ready to be answered. The prompts stay as they are.

    `options` go to the template: `enable_thinking` in Qwen3's.
    """
    return [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, **options)
        for prompt in prompts
    ]


def token_ids(tokenizer: Any, texts: Sequence[str], *, limit: int, fill: bool) -> tuple[Tensor, Tensor]:
    """(ids (B, T), mask (B, T) bool) on the CPU, cut to `limit` tokens; `fill` pads to the limit, else to the longest of the texts.

    Padded on the right, whatever the tokenizer's config: the pipelines that depend on it set it so themselves.
    """
    tokens = tokenizer(
        list(texts), padding="max_length" if fill else True, max_length=limit, truncation=True, padding_side="right", return_tensors="pt"
    )
    return tokens.input_ids, tokens.attention_mask.bool()


def count_text_tokens(tokenizer: Any, text: str, *, marks: bool = True) -> int:
    """Tokens of a text, uncut, with the marks that the tokenizer adds (`marks` False: a template's own are all)."""
    return len(tokenizer(text, truncation=False, verbose=False, add_special_tokens=marks).input_ids)


def hidden_states(encoder: nn.Module, ids: Tensor, mask: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The embeddings and every layer's states (B, T, D), from a forward without a cache. `options` go to the encoder (position_ids)."""
    device = next(encoder.parameters()).device
    if device.type == "meta":  # an encoder looks at its mask's values; shapes are known without it
        return _empty_states(encoder, ids)
    outputs = encoder(
        input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True, use_cache=False, return_dict=True, **options
    )
    states: tuple[Tensor, ...] = outputs.hidden_states
    return states


def _empty_states(encoder: Any, ids: Tensor) -> tuple[Tensor, ...]:
    import torch

    config = encoder.config.get_text_config()
    shape = (*ids.shape, config.hidden_size)
    return tuple(torch.empty(shape, dtype=encoder.dtype, device="meta") for _layer in range(config.num_hidden_layers + 1))


def own_tokens(states: Tensor, mask: Tensor, *, skip: int = 0, keep: int | None = None) -> tuple[Tensor, Tensor]:
    """(states (B, T, D), mask (B, T) bool) of each text's own tokens, zeros behind the shorter ones.

    The first `skip` tokens (a template's beginning) are left out, and at most `keep` stay. `mask` is the tokenizer's, on the CPU:
    lengths are known without asking the device, and on the meta device too.
    """
    import torch

    rows = [row.nonzero()[:, 0][skip:][:keep] for row in mask.cpu()]  # places of each text's tokens
    length = max(len(row) for row in rows)
    picked = [torch.nn.functional.pad(states[i][row.to(states.device)], (0, 0, 0, length - len(row))) for i, row in enumerate(rows)]
    lengths = torch.tensor([len(row) for row in rows])
    return torch.stack(picked), (torch.arange(length)[None] < lengths[:, None]).to(states.device)
