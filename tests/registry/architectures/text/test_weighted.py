"""Weighted prompts, against A1111's and ComfyUI's arithmetic written down once more, from their behaviour and with plain loops."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from registry.architectures.text.textual_inversion import TokenizerWithEmbeddings
from registry.architectures.text.weighted import EMPHASIS, Piece, WeightedText, a1111_chunks, comfy_chunks, weighted_chunks
from registry.errors import JobFailed
from tests.tiny import POSITIONS, tiny_parts

COMMA = 9
WEIGHTED = [Piece("a "), Piece("red", 1.4), Piece(" cat, of two"), Piece(" hats", 0.3)]
PLAIN = [Piece("a red cat, of two hats")]
LONG = [Piece("a very long prompt that "), Piece("does", 1.3), Piece(" not fit, of two chunks")]


def ids(text: str) -> list[int]:
    """One token a letter: its digit."""
    return [int(letter) for letter in text]


# --- chunks


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("", [[]]),
        ("12345", [[1, 2, 3, 4, 5]]),
        ("123456", [[1, 2, 3, 4, 5], [6]]),
        ("129456", [[1, 2, 9], [4, 5, 6]]),  # what is behind the comma moves on
        ("12349678", [[1, 2, 3, 4, 9], [6, 7, 8]]),
        ("123459", [[1, 2, 3, 4, 5], [9]]),  # a comma that begins a chunk
    ],
)
def test_a1111_moves_what_is_behind_the_last_comma(text: str, chunks: list[list[int]]) -> None:
    assert [chunk.ids for chunk in a1111_chunks([Piece(text)], ids, inside=5, comma=COMMA)] == chunks


def test_a1111_does_not_move_more_than_twenty_tokens() -> None:
    text = "9" + "1" * 25
    assert [len(chunk.ids) for chunk in a1111_chunks([Piece(text)], ids, inside=25, comma=COMMA)] == [25, 1]
    text = "111119" + "1" * 20
    assert [len(chunk.ids) for chunk in a1111_chunks([Piece(text)], ids, inside=25, comma=COMMA)] == [6, 20]


def test_a_break_ends_a_chunk_and_weights_move_with_their_tokens() -> None:
    pieces = [Piece("12"), Piece("", is_break=True), Piece("9", 2.0), Piece("34567", 3.0)]
    found = a1111_chunks(pieces, ids, inside=5, comma=COMMA)
    assert [(chunk.ids, chunk.weights) for chunk in found] == [([1, 2], [1, 1]), ([9], [2]), ([3, 4, 5, 6, 7], [3] * 5)]
    assert [chunk.ids for chunk in a1111_chunks([Piece("1"), Piece("", is_break=True)], ids, inside=5, comma=COMMA)] == [[1]]


def test_comfyui_moves_a_short_piece_and_cuts_a_long_one() -> None:
    found = comfy_chunks([Piece("123"), Piece("4567", 1.5), Piece("1" * 12)], ids, inside=5)
    assert [chunk.ids for chunk in found] == [[1, 2, 3], [4, 5, 6, 7, 1], [1] * 5, [1] * 5, [1]]


def test_an_embedding_of_several_vectors_is_not_cut() -> None:
    found = a1111_chunks([Piece("11178", 1.5)], ids, inside=4, comma=COMMA, vectors={7: 2})
    assert [(chunk.ids, chunk.weights) for chunk in found] == [([1, 1, 1], [1.5] * 3), ([7, 8], [1.5] * 2)]
    assert [chunk.ids for chunk in a1111_chunks([Piece("1178")], ids, inside=4, comma=COMMA, vectors={7: 2})] == [[1, 1, 7, 8]]
    found = comfy_chunks([Piece("1117812")], ids, inside=4, vectors={7: 2})
    assert [chunk.ids for chunk in found] == [[1, 1, 1], [7, 8, 1, 2]]


def test_the_tokenizer_of_an_embedding_says_how_many_vectors_it_has() -> None:
    _, parts = tiny_parts("sd1")
    tokenizer = TokenizerWithEmbeddings(parts.tokenizers["tokenizer"], [("<hat>", 3), ("<one>", 1)])
    first = tokenizer("a <hat>", add_special_tokens=False).input_ids[-3]
    assert tokenizer.vectors[first] == 3 and sorted(tokenizer.vectors.values()) == [1, 3]
    encoder = parts.text_encoders["text_encoder"]
    chunks = weighted_chunks(tokenizer, encoder, [Piece("one, " * 10), Piece("<hat>", 1.3)], EMPHASIS["a1111"])
    last = [chunk.ids for chunk in chunks if first in chunk.ids]
    assert len(last) == 1 and last[0][last[0].index(first) :][:3] == [first, first + 1, first + 2]


# --- states


def parts_of(family: str) -> tuple[Any, Any]:
    """A tiny model whose last norm has a bias, as a trained one: without it the mean of the states is 0."""
    known, parts = tiny_parts(family)
    encoders = copy.deepcopy(parts.text_encoders)
    for encoder in encoders.values():
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        torch.nn.init.normal_(norm.bias, mean=0.2, generator=torch.Generator().manual_seed(1))
    return known, replace(parts, text_encoders=encoders)


def reference(parts: Any, pieces: list[Piece], dialect: str, *, penultimate: bool) -> torch.Tensor:
    """(N T, D): token by token."""
    columns = []
    for name, encoder in parts.text_encoders.items():
        tokenizer = parts.tokenizers[name.replace("text_encoder", "tokenizer")]
        bos, eos = tokenizer("").input_ids
        tokens = [(one, piece.weight) for piece in pieces for one in tokenizer(piece.text, add_special_tokens=False).input_ids]
        inside = POSITIONS - 2
        rows = [tokens[start : start + inside] for start in range(0, len(tokens), inside)] or [[]]

        def states(row: list[tuple[int, float]], encoder: Any = encoder, tokenizer: Any = tokenizer, ends: Any = (bos, eos)) -> Any:
            line = [ends[0], *[one for one, _ in row], ends[1]]
            line += [tokenizer.pad_token_id] * (POSITIONS - len(line))
            out = encoder(torch.tensor([line]), output_hidden_states=True)
            return (out.hidden_states[-2] if penultimate else out.last_hidden_state)[0]

        chunks = []
        for row in rows:
            z = states(row)
            weights = [1.0, *[weight for _, weight in row], *[1.0] * (POSITIONS - 1 - len(row))]
            if dialect == "comfy":
                empty = states([])
                chunks.append(torch.stack([empty[place] + weight * (z[place] - empty[place]) for place, weight in enumerate(weights)]))
            else:
                done = torch.stack([z[place] * weight for place, weight in enumerate(weights)])
                chunks.append(done * (z.mean() / done.mean()) if dialect == "a1111" else done)
        columns.append(torch.cat(chunks))
    return torch.cat(columns, dim=-1)


@pytest.mark.parametrize("dialect", list(EMPHASIS))
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@torch.no_grad()
def test_the_states_are_the_arithmetic_of_the_other_program(family: str, dialect: str) -> None:
    known, parts = parts_of(family)
    found = known.encode_weighted(parts, [WeightedText(WEIGHTED)], dialect=dialect)
    expected = reference(parts, WEIGHTED, dialect, penultimate=family == "sdxl")
    assert found["embeds"].shape == (1, *expected.shape)
    assert torch.allclose(found["embeds"][0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dialect", list(EMPHASIS))
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@torch.no_grad()
def test_without_weights_a_short_prompt_is_as_plain(family: str, dialect: str) -> None:
    known, parts = parts_of(family)
    found, plain = known.encode_weighted(parts, [WeightedText(PLAIN)], dialect=dialect), known.encode_prompts(parts, [PLAIN[0].text])
    assert found.keys() == plain.keys() and all(found[key].equal(plain[key]) for key in found)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@torch.no_grad()
def test_a_long_prompt_has_chunks(family: str) -> None:
    known, parts = parts_of(family)
    found = known.encode_weighted(parts, [WeightedText(LONG)], dialect="a1111_no_norm")
    assert found["embeds"].shape[1] == 2 * POSITIONS
    if family == "sdxl":
        assert found["pooled"].shape == (1, parts.text_encoders["text_encoder_2"].config.projection_dim)


@torch.no_grad()
def test_a1111_restores_the_mean_over_the_texts_of_a_schedule() -> None:
    """Three turns of the first text and one of the second: A1111 encodes four rows at once."""
    known, parts = parts_of("sd1")
    texts = [WeightedText(WEIGHTED, 3), WeightedText(PLAIN, 1)]
    found = known.encode_weighted(parts, texts, dialect="a1111")["embeds"]
    raw = known.encode_weighted(parts, texts, dialect="a1111_no_norm")["embeds"]
    plain = known.encode_prompts(parts, [PLAIN[0].text] * 4)["embeds"]
    weighted = torch.stack([raw[0], raw[0], raw[0], raw[1]])
    assert torch.allclose(found, raw * (plain.mean() / weighted.mean()), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_mean_that_cannot_be_restored_is_an_error() -> None:
    known, parts = tiny_parts("sd1")  # its states have the mean 0
    with pytest.raises(JobFailed, match="a1111_no_norm"):
        known.encode_weighted(parts, [WeightedText([Piece("a"), Piece("b", 3.0)])], dialect="a1111")
