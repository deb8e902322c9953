"""Cosines of images with their prompts on vectors written out."""

from typing import Any

import numpy
import pytest

from infer.score.intervals import Resamples
from infer.score.models.embedder import cut_prompts
from train.judging.prompt_following import PromptFollowing, following
from train.run_report.model_tables import is_measured, model_tables

TEXTS = numpy.eye(5)  # five prompts that have nothing in common


def drawn(own: float, seeds: int = 2) -> Any:
    """(5, 2, 5) unit vectors with this cosine to their own prompt, and equal ones to the others."""
    other = float(numpy.sqrt((1 - own**2) / 4))
    rows = numpy.full((5, 5), other) + (own - other) * numpy.eye(5)
    return numpy.repeat(rows[:, None], seeds, axis=1)


def test_a_cosine_is_held_against_those_of_the_other_prompts() -> None:
    """Of a vector (.6, .4, .4, .4, .4) by prompts: .6 - .4. One that is equal to all follows none."""
    base, first, none = following({0: drawn(0.6), 10: drawn(1.0), 20: drawn(float(numpy.sqrt(0.2)))}, TEXTS, Resamples(5, 2))
    assert [base.cosine, base.value.value] == pytest.approx([0.6, 0.2]) and base.to_base is None
    assert first.value.value == pytest.approx(1.0) and first.to_base is not None and first.to_base.value == pytest.approx(0.8)
    assert first.to_base.side == "above" and none.to_base is not None and none.to_base.side == "below"
    assert none.value.value == pytest.approx(0.0)


def test_what_all_prompts_have_in_common_cancels() -> None:
    """A trigger in every prompt raises every cosine alike."""
    common = numpy.concatenate([TEXTS, numpy.full((5, 1), 1.0)], 1) / numpy.sqrt(2)
    images = numpy.concatenate([drawn(0.6), numpy.full((5, 2, 1), 0.5)], 2)
    (row,) = following({0: images}, common, Resamples(5, 2))
    assert row.value.value == pytest.approx(0.2 / numpy.sqrt(2)) and row.cosine == pytest.approx((0.6 + 0.5) / numpy.sqrt(2))


def test_three_prompts_cannot_tell() -> None:
    rows = following({0: drawn(0.6)[:3, :, :3], 1: drawn(0.2)[:3, :, :3]}, TEXTS[:3, :3], Resamples(3, 2))
    assert rows[1].to_base is not None and rows[1].to_base.side == "cannot tell"


def test_prompts_that_are_not_read_whole_are_counted() -> None:
    def tokens(prompt: str) -> tuple[int, int]:
        return len(prompt), 5

    assert cut_prompts(tokens, ["abc", "abcde"]) == []
    assert cut_prompts(tokens, ["abc", "abcdef"]) == [
        "1 of 2 prompts is longer than the 5 tokens of the text side, which reads no more than that"
    ]


def test_a_table_has_held_out_and_generic_prompts() -> None:
    from tests.train.judging.test_likeness import MODEL

    rows = following({0: drawn(0.6), 10: drawn(1.0)}, TEXTS, Resamples(5, 2))
    found = PromptFollowing(model=MODEL, heldout=rows, generic=())
    assert is_measured({"prompt_following": found.to_json()})
    (table,) = model_tables({"images": 10, "embeddings": [], "prompt_following": found.to_json()})
    assert [row[0] for row in table.rows] == ["base", "10"] and table.rows[0][:4] == ["base", "+0.200 (+0.200 to +0.200)", "", "0.600"]
    assert table.rows[1][2] == "+0.800 (+0.800 to +0.800)" and table.rows[1][4:] == ["", "", ""] and len(table.columns) == 7
