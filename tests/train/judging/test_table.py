"""Measures on plain images: a style that is reached, images that drift, copies; and the steps that are good on content and style."""

from collections.abc import Mapping

import numpy
import pytest
from PIL import Image

from infer.score.intervals import Interval
from registry.images.image_hash import BITS
from tests.train.judging.test_likeness import MODEL
from train.judging.likeness import Likeness, Likenesses
from train.judging.prompt_following import Following, PromptFollowing
from train.judging.rows import ImageTable, Row
from train.judging.table import Images, table_of
from train.run_report.judgement_rows import is_judgement, judgement_rows


def noise(seed: int, scale: float = 1.0, side: int = 32) -> Image.Image:
    """A smooth random image; a smaller scale is nearer to white."""
    small = numpy.random.default_rng(seed).integers(0, 256, (5, 5, 3)).astype(numpy.float64)
    return Image.fromarray((255 - scale * (255 - small)).astype(numpy.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def drawn(offset: int, scale: float, prompts: int = 5) -> list[list[Image.Image]]:
    return [[noise(offset + 10 * prompt + seed, scale) for seed in range(2)] for prompt in range(prompts)]


@pytest.fixture(scope="module")
def table() -> ImageTable:
    """Held-out and training images are pale. Step 1 is half as pale, step 2 is, and step 3 draws the training images."""
    trained = [noise(500 + number, 0.2) for number in range(10)]
    copies = [[trained[2 * prompt + seed] for seed in range(2)] for prompt in range(5)]
    own = {0: drawn(0, 1.0), 1: drawn(0, 0.6), 2: drawn(0, 0.2), 3: copies}
    generic = {0: drawn(200, 1.0), 1: drawn(200, 1.0), 2: [row[::-1] for row in drawn(200, 1.0)], 3: drawn(300, 1.0)}
    heldout = [noise(700 + number, 0.2) for number in range(6)]
    return table_of(Images(own=own, generic=generic, heldout=heldout, trained=trained, losses={0: 0.9, 1: 0.7, 2: 0.6, 3: 0.85}))


def test_style_is_held_against_the_base(table: ImageTable) -> None:
    first, second, third = table.rows
    assert table.base_style > first.style_distance > second.style_distance
    assert first.style.side == second.style.side == third.style.side == "below"
    assert second.style.value == pytest.approx(second.style_distance - table.base_style)


def test_drift_is_nothing_at_the_base_and_one_at_another_seed(table: ImageTable) -> None:
    first, second, third = (row.drift for row in table.rows)
    assert first is not None and (first.value, first.low, first.high) == (0.0, 0.0, 0.0)
    assert second is not None and second.value == pytest.approx(1.0)  # each image is the other seed's
    assert third is not None and third.value > 0.5


def test_copies_are_counted_against_the_held_out_images(table: ImageTable) -> None:
    first, _, third = table.rows
    assert third.near_bits == 0 and third.copies == 10 and third.copying and third.near.side == "below"
    assert not first.copying and first.near_bits == pytest.approx(table.base_near, abs=4)  # colours alone change few bits
    assert table.heldout_near is not None and table.heldout_near > 8


def test_the_good_steps_are_good_on_content_and_style(table: ImageTable) -> None:
    assert table.content() == [1, 2] and 2 in table.styled() and table.good() == [2]
    assert table.sentence().startswith("by images: step 2, good on content and style; from step 3 on images are copies")


def row(step: int, style: tuple[float, float, float], loss: float | None) -> Row:
    interval = Interval(*style)
    return Row(
        step=step,
        style_distance=1.0,
        style=interval,
        drift=None,
        near_bits=20.0,
        near=Interval(0.0, -1.0, 1.0),
        copies=0,
        copying=False,
        loss=loss,
    )


LOSSES: Mapping[str, tuple[list[Row], str]] = {
    "apart": (
        [row(50, (-0.5, -0.6, -0.4), 0.5), row(200, (-3.0, -3.2, -2.8), 0.8)],
        "no kept checkpoint is good on both: content at step 50, style at step 200",
    ),
    "cannot tell": ([row(50, (-0.5, -1.0, 0.2), 0.5)], "these images cannot tell: no checkpoint is nearer"),
    "no losses": ([row(50, (-1.0, -1.2, -0.8), None)], "step 50, good on style (there are no held-out losses"),
    "range": ([row(50, (-1.0, -1.2, -0.8), 0.6), row(60, (-1.0, -1.2, -0.8), 0.6)], "step 50 to step 60, good on content and style"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_the_sentence_says_where_to_choose(case: str) -> None:
    rows, words = LOSSES[case]
    found = ImageTable(rows=tuple(rows), images=8, base_style=4.0, base_near=22.0, heldout_near=18.0, base_loss=0.9)
    assert words in found.sentence()


def test_the_json_is_what_a_report_shows(table: ImageTable) -> None:
    value = table.to_json()
    assert is_judgement(value) and value["checkpoints"][2]["nearest"] == 0.0 and value["steps"] == [2]
    columns, rows = judgement_rows(value)
    assert len(columns) == len(rows[0]) == len(rows[3]) and [line[0] for line in rows] == ["base", "1", "2", "3"]
    assert rows[3][4] == f"0.0 of {BITS} bits" and rows[3][6] == "10 of 10, copying"
    assert not is_judgement({**value, "checkpoints": [{}]}) and not is_judgement({"sentence": "x"})


NONE = Interval(0.0, -0.1, 0.1)


def likeness(step: int, gain: tuple[float, float, float], *, copying: bool = False) -> Likeness:
    return Likeness(
        step=step,
        matching=NONE,
        matching_to_base=NONE,
        heldout=NONE,
        heldout_to_base=Interval(*gain),
        nearest=NONE,
        nearest_to_base=NONE,
        copies=0,
        copying=copying,
    )


def followed(step: int, change: tuple[float, float, float]) -> Following:
    return Following(step=step, cosine=0.3, value=NONE, to_base=Interval(*change))


UP, MORE, UNCLEAR, DOWN = (0.1, 0.05, 0.15), (0.3, 0.25, 0.35), (0.02, -0.1, 0.1), (-0.1, -0.15, -0.05)
STYLED = [row(50, (-3.0, -3.2, -2.8), 0.5), row(100, (-3.0, -3.2, -2.8), 0.5), row(150, (-3.0, -3.2, -2.8), 0.5)]
PLAIN = [row(50, (-0.1, -0.5, 0.3), 0.5), row(100, (-0.1, -0.5, 0.3), 0.5), row(150, (-0.1, -0.5, 0.3), 0.5)]
CHOICES = {
    "similarity keeps half": (STYLED, [[UP, MORE, MORE]], None, [100, 150], "step 100 to step 150, good on content, style and similarity"),
    "both models must": (STYLED, [[UP, MORE, MORE], [MORE, MORE, UP]], None, [100], "step 100, good on content, style and similarity"),
    "a model that cannot tell": (STYLED, [[UNCLEAR] * 3], None, [50, 100, 150], "good on content and style"),
    "prompts are lost": (STYLED, [], [UNCLEAR, UP, DOWN], [50, 100], "step 50 to step 100, good on content, style and prompts"),
    "no style": (PLAIN, [[UP, MORE, MORE]], None, [100, 150], "step 100 to step 150, good on content, style and similarity"),
    "apart": (
        STYLED,
        [[UNCLEAR, UNCLEAR, MORE]],
        [UP, UP, DOWN],
        [],
        "good on all: content at steps 50, 100, 150, style at steps 50, 100, 150, similarity at step 150, prompts at steps 50, 100",
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_models_by_path_take_part_in_the_choice(case: str) -> None:
    rows, gains, changes, good, words = CHOICES[case]
    steps = [row.step for row in rows]
    models = [
        Likenesses(model=MODEL, base={}, among_heldout=0.5, heldout_nearest=None, rows=tuple(map(likeness, steps, one))) for one in gains
    ]
    prompts = PromptFollowing(model=MODEL, heldout=tuple(map(followed, steps, changes)), generic=()) if changes else None
    found = ImageTable(
        rows=tuple(rows),
        images=8,
        base_style=4.0,
        base_near=22.0,
        heldout_near=18.0,
        base_loss=0.9,
        likenesses=tuple(models),
        prompts=prompts,
    )
    assert found.good() == good and words in found.sentence()


def test_a_copy_by_a_model_is_a_copy() -> None:
    models = Likenesses(
        model=MODEL,
        base={},
        among_heldout=0.5,
        heldout_nearest=0.5,
        rows=(likeness(50, MORE), likeness(100, MORE), likeness(150, MORE, copying=True)),
    )
    found = ImageTable(rows=tuple(STYLED), images=8, base_style=4.0, base_near=22.0, heldout_near=18.0, base_loss=0.9, likenesses=(models,))
    assert found.copying() == [150] and found.good() == [50, 100] and "from step 150 on images are copies" in found.sentence()
