"""Cosines on vectors written out: to the own held-out image, to all of them, to the nearest training image; and what is a copy."""

from typing import Any

import numpy
import pytest

from infer.score.intervals import Resamples
from infer.score.models.embedder import Definition
from train.judging.likeness import Likenesses, Vectors, likenesses
from train.run_report.model_tables import is_measured, model_tables

MODEL = Definition(path="/models/net", kind="onnx", name="net", input="8 x 8 px", output="the first output", width=2, sha256="0" * 64)
PROMPTS = ["a", "b", "c", "d"]


def at(degrees: Any) -> Any:
    """Unit vectors (..., 2) at these angles: cosines are those of their differences."""
    angles = numpy.deg2rad(numpy.asarray(degrees, dtype=numpy.float64))
    return numpy.stack([numpy.cos(angles), numpy.sin(angles)], -1)


def cosine(degrees: float) -> float:
    return float(numpy.cos(numpy.deg2rad(degrees)))


@pytest.fixture(scope="module")
def found() -> Likenesses:
    """Held-out images at 0, 10, 20, 30 and a second one of prompt a at 40; training images at 50 and 100 degrees.

    The base draws everything at 90 degrees, step 1 each prompt's own held-out image, step 2 the training image at 50.
    """
    own = {0: at([[90, 90]] * 4), 1: at([[0, 0], [10, 10], [20, 20], [30, 30]]), 2: at([[50, 50]] * 4)}
    vectors = Vectors(own=own, heldout=at([0, 10, 20, 30, 40]), trained=at([50, 100]))
    return likenesses(MODEL, vectors, prompts=PROMPTS, heldout_prompts=[*PROMPTS, "a"], resamples=Resamples(4, 2))


def test_a_prompts_own_held_out_images_are_compared(found: Likenesses) -> None:
    """Prompt a has two: its image at 0 degrees is 0 and 40 from them."""
    first = found.rows[0]
    assert first.matching.value == pytest.approx((cosine(0) / 2 + cosine(40) / 2 + 3) / 4)
    assert found.base["matching"] == pytest.approx(((cosine(90) + cosine(50)) / 2 + cosine(80) + cosine(70) + cosine(60)) / 4)
    assert first.matching_to_base.value == pytest.approx(first.matching.value - float(found.base["matching"] or 0))
    assert first.matching_to_base.side == "above"


def test_all_held_out_images_are_compared(found: Likenesses) -> None:
    assert found.rows[1].heldout.value == pytest.approx(sum(cosine(angle) for angle in (50, 40, 30, 20, 10)) / 5)
    gaps = [10 * abs(one - other) for one in range(5) for other in range(5) if one != other]
    assert found.among_heldout == pytest.approx(sum(map(cosine, gaps)) / 20)


def test_a_copy_is_nearer_to_a_training_image_than_held_out_images_are(found: Likenesses) -> None:
    first, second = found.rows
    assert found.heldout_nearest == pytest.approx(sum(map(cosine, (50, 40, 30, 20, 10))) / 5)
    assert found.base["nearest"] == pytest.approx(cosine(10))
    assert first.nearest is not None and first.nearest.value == pytest.approx(sum(map(cosine, (50, 40, 30, 20))) / 4)
    assert (first.copies, first.copying) == (0, False)
    assert second.nearest is not None and second.nearest.value == pytest.approx(1.0) and (second.copies, second.copying) == (8, True)


def test_few_prompts_cannot_tell_a_copy_and_no_training_images_have_none() -> None:
    own = {0: at([[90, 90]] * 3), 1: at([[50, 50]] * 3)}
    some = Vectors(own=own, heldout=at([0, 10, 20]), trained=at([50, 100]))
    (row,) = likenesses(MODEL, some, prompts=PROMPTS[:3], heldout_prompts=PROMPTS[:3], resamples=Resamples(3, 2)).rows
    assert row.copies == 6 and not row.copying and row.matching_to_base.side == "cannot tell"
    none = Vectors(own=own, heldout=at([0, 10, 20]), trained=numpy.zeros((0, 2)))
    found = likenesses(MODEL, none, prompts=PROMPTS[:3], heldout_prompts=PROMPTS[:3], resamples=Resamples(3, 2))
    assert found.rows[0].nearest is None and found.heldout_nearest is None and not found.rows[0].copying
    assert is_measured({"embeddings": [found.to_json()]})


def test_a_table_has_the_base_and_the_held_out_images(found: Likenesses) -> None:
    value = {"images": 8, "embeddings": [found.to_json()]}
    assert is_measured(value)
    (table,) = model_tables(value)
    assert [row[0] for row in table.rows] == ["base", "1", "2", "held-out images"] and {len(row) for row in table.rows} == {
        len(table.columns)
    }
    assert table.title == "likeness by net of /models/net" and table.rows[2][-1] == "8 of 8, copying" and table.rows[0][5] == "0.985"
    assert "+" in table.rows[1][2] and "0" * 64 in table.about
    broken = found.to_json()
    broken["checkpoints"][0]["matching"] = 5
    assert not is_measured({"embeddings": [broken]}) and not is_measured({"embeddings": 5})
