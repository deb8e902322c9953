"""Prompts in several chunks of CLIP's context: the ids that A1111 and sd-scripts make, and the states of sd-scripts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from registry.architectures.text.clip_chunks import chunk_ids, chunks_needed
from registry.errors import Refused
from registry.families import FAMILIES
from registry.formats.single_file import clip_tokenizer
from tests.tiny import POSITIONS, tiny_parts

if TYPE_CHECKING:
    from torch import Tensor

LONG = "a very long prompt that does not fit, of two chunks"  # 43 letters: two chunks of 22 in the tiny models
CLIP_FAMILIES = ("sd1", "sd2", "sdxl", "sdxl_refiner")
BOS, EOS, A, RED, APPLE = 49406, 49407, 320, 736, 3055  # CLIP's own ids


# --- ids


@pytest.mark.parametrize(("pad", "filler"), [("<|endoftext|>", EOS), ("!", 0)])
def test_the_ids_are_those_of_a1111(pad: str, filler: int) -> None:
    """Chunks of sd_hijack_clip.py: BOS, 75 tokens, EOS, then the encoder's own padding; an empty chunk is BOS, EOS, padding."""
    tokenizer = clip_tokenizer(pad=pad, limit=77)
    ids, mask = chunk_ids(tokenizer, ["a red apple " * 30, "a red apple", "a red apple " * 25], chunks=2, limit=77)
    assert ids.tolist() == [
        [[BOS, *[A, RED, APPLE] * 25, EOS], [BOS, *[A, RED, APPLE] * 5, EOS, *[filler] * 60]],
        [[BOS, A, RED, APPLE, EOS, *[filler] * 72], [BOS, EOS, *[filler] * 75]],
        [[BOS, *[A, RED, APPLE] * 25, EOS], [BOS, EOS, *[filler] * 75]],
    ]
    assert mask.sum(dim=-1).tolist() == [[77, 17], [5, 2], [77, 2]]


def test_one_chunk_is_what_the_tokenizer_gives() -> None:
    tokenizer = clip_tokenizer(pad="!", limit=77)
    prompts = ["a red apple", "", "a red apple " * 40]
    given = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    ids, mask = chunk_ids(tokenizer, prompts, chunks=1, limit=77)
    assert ids[:, 0].equal(given.input_ids) and mask[:, 0].equal(given.attention_mask.bool())


def sd_scripts_ids(tokenizer: Any, prompt: str, chunks: int) -> Tensor:
    """(N, T) by sd-scripts' rule: the prompt padded to 75 N + 2 and cut; what an encoder padded with another token lacks is put in."""
    import torch

    length, inside = POSITIONS, POSITIONS - 2
    whole = tokenizer(prompt, padding="max_length", max_length=chunks * inside + 2, truncation=True).input_ids
    rows = [[whole[0], *whole[1 + n * inside : 1 + (n + 1) * inside], whole[-1]] for n in range(chunks)]
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    for row in rows if pad != eos else []:
        if row[-2] not in (eos, pad):
            row[-1] = eos
        if row[1] == pad:
            row[1] = eos
    assert all(len(row) == length for row in rows)
    return torch.tensor(rows)


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
@pytest.mark.parametrize("letters", [0, 1, 20, 21, 22, 23, 43, 44, 45, 66, 67, 90])
def test_the_ids_are_those_of_sd_scripts(pad: str, letters: int) -> None:
    from tests.tiny import clip_tokenizer as tiny_tokenizer

    tokenizer, prompt = tiny_tokenizer(pad), "a" * letters
    ids, _ = chunk_ids(tokenizer, [prompt], chunks=3, limit=POSITIONS)
    assert ids[0].equal(sd_scripts_ids(tokenizer, prompt, 3))


def test_the_chunks_that_a_prompt_needs() -> None:
    assert [chunks_needed(needs, 77, chunks=1) for needs in (2, 77, 78, 152, 153)] == [1, 1, 2, 2, 3]
    assert chunks_needed(153, 227, chunks=3) == 3 and chunks_needed(77, 227, chunks=3) == 1


# --- states


@pytest.mark.parametrize("name", CLIP_FAMILIES)
def test_each_chunk_is_encoded_by_itself_and_the_first_one_pools(name: str) -> None:
    """A prompt of two chunks is the states of its halves, each encoded as a prompt of one."""
    import torch

    family, parts = tiny_parts(name)
    halves = ["averylongpromptthatdoe", "snotfit"]  # 22 tokens, and 7
    with torch.no_grad():
        one = family.encode_prompts(parts, halves)
        two = family.encode_prompts(replace(parts, prompt_chunks=2), ["".join(halves), "short"])
        empty = family.encode_prompts(parts, ["short", ""])
    assert two["embeds"].shape[:2] == (2, 2 * POSITIONS)
    inside = slice(0, POSITIONS - 2)  # the half's last letter is another token where a word ends
    assert torch.allclose(two["embeds"][0, inside], one["embeds"][0, inside], atol=1e-5)
    assert torch.allclose(two["embeds"][0, POSITIONS:], one["embeds"][1], atol=1e-5)
    assert torch.allclose(two["embeds"][1], empty["embeds"].flatten(0, 1), atol=1e-5)
    if "pooled" in two:
        assert two["pooled"].shape == empty["pooled"].shape and torch.allclose(two["pooled"][1], empty["pooled"][0], atol=1e-5)


@pytest.mark.parametrize(("name", "skip"), [("sd1", None), ("sd1", 1), ("sd2", 1), ("sdxl", None)])
def test_the_states_are_sd_scripts_with_the_inner_bos_and_eos(name: str, skip: int | None) -> None:
    """sd-scripts keeps the first BOS, 75 states of each chunk, and the last state of all."""
    import torch

    family, parts = tiny_parts(name)
    chunks, rows = 3, []
    pooled: Any = None
    with torch.no_grad():
        for (_, tokenizer), encoder in zip(parts.tokenizers.items(), parts.text_encoders.values(), strict=True):
            outputs = encoder(sd_scripts_ids(tokenizer, LONG, chunks), output_hidden_states=True)
            if name == "sdxl":
                rows.append(outputs.hidden_states[-2])
                pooled = outputs.text_embeds if "text_embeds" in outputs else None  # the second encoder has them
            else:
                rows.append(encoder.final_layer_norm(outputs.hidden_states[-1 - (skip or 0)]))
        found = family.encode_prompts(replace(parts, prompt_chunks=chunks), [LONG], clip_skip=skip)
    states = torch.cat(rows, dim=-1)  # (N, T, D)
    expected = torch.cat([states[0, :1], states[:, 1:-1].flatten(0, 1), states[-1, -1:]])
    own = [0, *(n * POSITIONS + place for n in range(chunks) for place in range(1, POSITIONS - 1)), chunks * POSITIONS - 1]
    assert torch.allclose(found["embeds"][0, own], expected, atol=1e-5)
    assert name != "sdxl" or torch.allclose(found["pooled"][0], pooled[0], atol=1e-5)


@pytest.mark.parametrize("name", CLIP_FAMILIES)
def test_the_negative_has_as_many_chunks(name: str) -> None:
    import torch

    family, parts = tiny_parts(name)
    wide = replace(parts, prompt_chunks=2)
    with torch.no_grad():
        length = family.encode_prompts(wide, ["a"])["embeds"].shape[1]
        nothing, one = family.encode_unconditional(wide, 2), family.encode_unconditional(parts, 2)
        assert family.negatives(wide, ["b"])["embeds"].shape[1] == length == nothing["embeds"].shape[1]
    assert torch.allclose(nothing["embeds"], one["embeds"].repeat(1, 2, 1), atol=1e-5), "every chunk of it is empty"


def test_tokens_are_counted_against_all_chunks() -> None:
    family, parts = tiny_parts("sdxl")
    assert family.count_tokens(parts, "abc") == (5, 24)
    assert family.count_tokens(replace(parts, prompt_chunks=3), "abc") == (5, 68)  # 3 x 22 + 2


def test_families_that_read_one_chunk_refuse_more() -> None:
    for family in FAMILIES.values():
        family.check_chunks(1)
        if family.name in CLIP_FAMILIES:
            family.check_chunks(3)
        else:
            with pytest.raises(Refused, match=r"prompt_chunks is 3, but a prompt of .* is read in one: .*\. Leave it out\."):
                family.check_chunks(3)
