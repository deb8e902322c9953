"""Tokens, chunks, what is cut, and nearest words: `pocket`'s own text encoder, and the tiny ones of other families."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from infer.explain.similarity import POOLED, similarities
from infer.explain.tokens import nearest_words, pairs, tokens_of, without_marks
from infer.hires.setting import Hires
from tests.infer.images import resolved
from tests.tiny import tiny_parts


@pytest.fixture(scope="module")
def pocket() -> Any:
    from registry.families import FAMILIES
    from registry.home import pocket_dir

    family = FAMILIES["sd1"]
    return family, family.load(pocket_dir(), dtype=torch.float32, device="cpu")


def test_tokens_of_a_prompt_with_their_nearest_words(pocket: Any) -> None:
    family, parts = pocket
    prompt, negative = tokens_of(resolved(prompt="a red apple", negative="blue", guidance=4.0), family, parts)
    assert [(one.text, one.id) for one in prompt.tokens] == [("a", 320), ("red", 736), ("apple", 2180)]
    assert [near.text for near in prompt.tokens[1].nearest[:3]] == ["orange", "brown", "pink"]
    assert negative.name == "negative" and negative.tokens[0].nearest[0].text == "purple"
    assert prompt.fit == 32 and prompt.chunks == 1 and prompt.to_json()["cut"] == 0
    assert [one.name for one in tokens_of(resolved(prompt="a", negative="b", guidance=1.0), family, parts)] == ["prompt"]  # never read


def test_nearest_words_are_those_of_the_largest_cosine(pocket: Any) -> None:
    _family, parts = pocket
    ((_name, tokenizer, encoder),) = pairs(parts)
    table: Any = encoder.get_input_embeddings().weight.detach()  # type: ignore[operator]
    cosines = torch.nn.functional.cosine_similarity(table[2180][None], table, dim=1)
    found = nearest_words(tokenizer, encoder, [2180, 10**6])
    assert list(found) == [2180]  # a textual inversion embedding's id has no row
    order = [one for one in cosines.argsort(descending=True).tolist() if one not in (2180, *tokenizer.all_special_ids)]
    assert [near.id for near in found[2180]] == [one for one in order if one < len(tokenizer)][:5]
    assert [near.cosine for near in found[2180]] == pytest.approx([float(cosines[near.id]) for near in found[2180]], abs=1e-4)


def test_what_is_behind_the_context_is_cut_or_in_chunks(pocket: Any) -> None:
    family, parts = pocket
    long = resolved(prompt=" ".join(["apple"] * 33))
    (one,) = tokens_of(long, family, parts)
    assert len(one.tokens) == 33 and [token.cut for token in one.tokens] == [False] * 30 + [True] * 3
    (two,) = tokens_of(replace(long, prompt_chunks=2), family, parts)
    assert [token.chunk for token in two.tokens] == [0] * 30 + [1] * 3 and not any(token.cut for token in two.tokens) and two.fit == 62


def test_a_dialect_s_marks_are_weights(pocket: Any) -> None:
    family, parts = pocket
    found = tokens_of(resolved(prompt="a (red:1.5) [apple:pear:0.5]", prompt_dialect="a1111", steps=4), family, parts)
    texts = [[(token.text, token.weight) for token in one.tokens] for one in found]
    assert texts == [[("a", 1.0), ("red", 1.5), ("apple", 1.0)], [("a", 1.0), ("red", 1.5), ("pear", 1.0)]]


def test_texts_of_a_second_pass_are_read_too(pocket: Any) -> None:
    """A1111 counts the steps of a schedule on from the first pass, and a share above 1 is of the second one."""
    family, parts = pocket
    hires = Hires(scale=2.0, width=128, height=128, steps=4, strength=0.5, guided=False)
    one = resolved(prompt="[apple:pear:6]", negative="[red:blue:1.5]", prompt_dialect="a1111", steps=4, hires=hires)
    texts = [(row.name, [token.text for token in row.tokens]) for row in tokens_of(one, family, parts)]
    assert texts == [("prompt", ["apple"]), ("prompt", ["pear"]), ("negative", ["red"])]  # no negative prompt in the second pass
    guided = tokens_of(replace(one, hires=replace(hires, guided=True)), family, parts)
    assert [row.tokens[0].text for row in guided] == ["apple", "pear", "red", "blue"]


@pytest.mark.parametrize("family", ["sdxl", "flux1", "qwen_image"])
def test_every_encoder_of_a_family_has_its_own_tokens(family: str) -> None:
    found, parts = tiny_parts(family)
    rows = tokens_of(resolved(prompt="a cat"), found, parts)
    assert [one.encoder for one in rows] == [name for name, *_ in pairs(parts)] and len(rows) == (1 if family == "qwen_image" else 2)
    assert all(one.tokens and any(token.nearest for token in one.tokens if not token.special) for one in rows)
    assert not any(token.cut for one in rows for token in one.tokens)
    similar = similarities(parts, "a cat", ["a cat", "a dog on a mat"])
    assert [one.cosine for one in similar if one.second == "a cat"] == pytest.approx([1.0] * len(rows), abs=1e-5)
    assert all(-1 <= one.cosine < 0.99999 for one in similar if one.second != "a cat")


def test_pooled_states_order_texts_by_what_they_mean(pocket: Any) -> None:
    _family, parts = pocket
    near, far = similarities(parts, "a red apple", ["a green apple", "a blue truck"])
    assert near.cosine > far.cosine and near.pooled == POOLED


@pytest.mark.parametrize(
    ("dialect", "text", "plain"),
    [
        ("plain", "a (red:1.2) cat", "a (red:1.2) cat"),
        ("a1111", "a (red:1.2) [wild] cat", "a red wild cat"),
        ("a1111", "a [cat:dog:0.5]", "a cat"),
        ("comfy", "a (red:1.2) cat", "a red cat"),
    ],
)
def test_a_prompt_without_the_marks_of_its_weights(dialect: str, text: str, plain: str) -> None:
    assert without_marks(text, resolved(prompt=text, prompt_dialect=dialect)) == plain
