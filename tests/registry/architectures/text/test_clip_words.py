"""Tokens counted word by word are those of the whole text."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import pre_tokenizers

from registry.architectures.text.clip_words import WordCounts, reads_words_apart, tokens_of
from registry.formats.single_file import clip_tokenizer

TEXTS = (
    "",
    "a photo of a red apple",
    "  two  spaces ",
    "dog's it's 'S don't",
    "1girl, solo, (long hair:1.2)... !!",
    "<|endoftext|> x<|startoftext|>y",
    "e\u0301 \u0301a \u0345 \u1100\u1161 \u1100 \u1161 \ufb01 \u0130 \u03a3\u0391\u03a3 \u03a3",
    "no\u00a0break\u2003em\u3000wide\nline\ttab\x85next\x1cunit",
    "\u65e5\u672c\u8a9e \U0001f469\u200d\U0001f469\u200d\U0001f467 na\u00efve",
)


@pytest.mark.parametrize("added", [[], ["zwx", "<new>", "ab_1"]], ids=["clip", "added"])
def test_a_text_has_the_tokens_of_its_words(added: list[str]) -> None:
    tokenizer = clip_tokenizer(pad="!", limit=77)
    assert reads_words_apart(tokenizer)
    tokens_of(tokenizer, "zwx zwxman")  # known before tokens are added
    tokenizer.add_tokens(added)
    assert reads_words_apart(tokenizer)
    for text in (*TEXTS, "zwx zwxman <new>ab_1 ab_12", " ".join(TEXTS)):
        whole = tokenizer(text, truncation=False, verbose=False).input_ids
        assert [tokens_of(tokenizer, text) for _ in range(2)] == [len(whole)] * 2, text


def test_a_token_with_a_space_is_read_whole() -> None:
    tokenizer = clip_tokenizer(pad="!", limit=77)
    tokenizer.add_tokens(["red apple"])
    assert not reads_words_apart(tokenizer) and tokens_of(tokenizer, "a red apple") == 4


def test_another_way_of_splitting_is_read_whole() -> None:
    tokenizer = clip_tokenizer(pad="!", limit=77)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert not reads_words_apart(tokenizer)
    assert tokens_of(tokenizer, "a red apple") == len(tokenizer("a red apple").input_ids)


class LookedUp(dict[str, int]):
    """Words that are looked up one by one."""

    def keys(self) -> Any:
        raise AssertionError("all that is known was gone through")

    __iter__ = items = values = keys


def test_a_new_word_does_not_go_through_the_known_ones() -> None:
    """Each caption of a large set may have a word of its own."""
    tokenizer = clip_tokenizer(pad="!", limit=77)
    counts = WordCounts(tokenizer)
    counts._known = LookedUp({"": 0})
    for text in TEXTS:
        assert counts.count(tokenizer, text) == len(tokenizer(text, truncation=False, verbose=False).input_ids)
    assert len(counts._known) > 30
