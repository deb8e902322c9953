"""Language models as text encoders: templates, masks and each text's own tokens."""

from __future__ import annotations

from typing import Any

import torch

from registry.architectures.text.llm import chat_texts, hidden_states, own_tokens, token_ids
from tests.tiny_llm import qwen3, qwen_tokenizer

PROMPTS = ["a red apple", "hi"]


def test_a_chat_template_leaves_the_prompts_alone() -> None:
    prompts = list(PROMPTS)
    once, again = (chat_texts(qwen_tokenizer(), prompts, enable_thinking=False) for _ in range(2))
    assert prompts == PROMPTS and once == again
    assert once[1] == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_padding_stands_behind_whatever_the_tokenizer_says() -> None:
    tokenizer: Any = qwen_tokenizer()
    tokenizer.padding_side = "left"
    ids, mask = token_ids(tokenizer, PROMPTS, limit=8, fill=True)
    assert ids.shape == mask.shape == (2, 8) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [8, 2] and mask[1].tolist() == [True] * 2 + [False] * 6
    ids, mask = token_ids(tokenizer, PROMPTS, limit=100, fill=False)
    assert mask.shape == (2, len("a red apple"))


def test_padding_does_not_change_a_text_s_states() -> None:
    encoder, tokenizer = qwen3(), qwen_tokenizer()
    with torch.no_grad():
        together = hidden_states(encoder, *token_ids(tokenizer, PROMPTS, limit=32, fill=True))[-2]
        alone = hidden_states(encoder, *token_ids(tokenizer, PROMPTS[1:], limit=32, fill=False))[-2]
    assert alone.shape == (1, 2, 32)
    assert float((together[1:, :2] - alone).abs().max()) <= 1e-6  # sums in another order


def test_own_tokens_are_cut_at_both_ends_and_padded_behind() -> None:
    states = torch.arange(10.0).view(2, 5, 1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]).bool()  # the second padded in front
    picked, kept = own_tokens(states, mask, skip=1, keep=3)
    assert picked[..., 0].tolist() == [[1.0, 2.0, 3.0], [8.0, 9.0, 0.0]]
    assert kept.tolist() == [[True, True, True], [True, True, False]]
    shapes = own_tokens(states.to("meta"), mask, skip=1)
    assert shapes[0].shape == (2, 4, 1) and shapes[1].device.type == "meta"
