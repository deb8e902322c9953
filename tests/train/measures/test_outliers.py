"""Outliers of histories written out, and of a set on pocket in which two captions are swapped."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from registry.store import Store
from train import run
from train.config import TrainConfig, changed
from train.loop.history import History
from train.measures.outliers import outliers_of, sentences

INK = Path(__file__).parents[3] / "datasets" / "ink"
NAMES = [f"{letter}.png" for letter in "abcdefghij"]
CLEAR = [-0.04, -0.06] * 4
UNCLEAR = [-0.25, 0.15] * 4
OWN = [0.50, 0.52, 0.48, 0.55, 0.45, 0.51, 0.49, 0.53, 0.47, 0.50]


def history(*, wrong: int | None = None, high: int | None = None, used: bool = True, again: Sequence[float] = CLEAR) -> History:
    """Ten images whose losses fall to about 0.8 of the base's: of one the caption is another's, of one the loss stays.

    Two are suspected and measured again at eight points: the wrong one with `again`, and one whose caption is right.
    """
    last = [loss * (0.8 + 0.01 * (place % 3)) for place, loss in enumerate(OWN)]
    if high is not None:
        last[high] = OWN[high]
    others = [loss + (0.1 if used else 0.001 * (place % 3 - 1)) for place, loss in enumerate(last)]
    more: dict[str, Any] = {"suspects": [], "suspect_shares": []}
    if wrong is not None:
        others[wrong] = last[wrong] - 0.05
        more = {"suspects": [wrong, 8], "suspect_shares": [*again, *([0.05, 0.1] * 4)]}
    rows: list[dict[str, Any]] = [
        {"step": 10, "images": last, "image_others": others, **more},
        {"step": 20, "images": last, "image_others": []},
    ]
    return History(before={"images": OWN, "image_others": []}, heldout=rows)


def test_an_image_whose_caption_does_not_help_is_named_and_one_whose_loss_stays() -> None:
    found = outliers_of(history(wrong=3, high=6), NAMES)
    assert [(one.image, one.reason) for one in found] == [("d.png", "caption"), ("g.png", "loss")]
    assert found[0].value == pytest.approx(-0.05) and found[1].value == pytest.approx(1.0) and found[1].median == pytest.approx(0.81)
    first, second = sentences(found)
    assert "d.png (-0.0500)" in first and "g.png (100%)" in second


def test_a_set_without_any_has_none() -> None:
    assert outliers_of(history(), NAMES) == [] and sentences([]) == []


def test_a_caption_must_fit_worse_beyond_chance_when_it_is_measured_again() -> None:
    """Both have the mean -.05 over eight points; and the interval holds for two suspects at once."""
    assert outliers_of(history(wrong=3, again=UNCLEAR), NAMES) == []
    assert outliers_of(history(wrong=3, again=[0.05] * 8), NAMES) == []
    nearly = [-0.15, 0.02] * 4  # t = -2.0 of 7 degrees of freedom: two suspects need 2.84
    assert outliers_of(history(wrong=3, again=nearly), NAMES) == []
    assert outliers_of(history(wrong=3, again=[-0.03, -0.05] * 4), NAMES) == [], "clear, and less than a tenth of the loss of .44"
    old = history(wrong=3)
    del old.heldout[0]["suspects"], old.heldout[0]["suspect_shares"]
    assert outliers_of(old, NAMES) == [], "a run from before, in which nothing was measured again"


def test_captions_that_are_not_used_or_are_wrong_of_many_name_nobody() -> None:
    assert outliers_of(history(wrong=3, used=False), NAMES) == []
    many = history(wrong=3)
    for place in (0, 1):
        many.heldout[0]["image_others"][place] -= 0.15
    assert len(outliers_of(many, NAMES)) == 0, "three of ten"


def test_few_images_and_old_histories_have_none() -> None:
    found = history(wrong=0)
    few = [{name: values[:5] if isinstance(values, list) else values for name, values in row.items()} for row in found.heldout]
    assert outliers_of(History(before={"images": OWN[:5]}, heldout=few), NAMES[:5]) == [] and outliers_of(History(), NAMES) == []


@pytest.mark.slow
def test_two_swapped_captions_are_named_first(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(INK, tmp_path / "ink"))
    fox, key = folder / "fox.txt", folder / "key.txt"
    one, other = fox.read_text(), key.read_text()
    fox.write_text(other)
    key.write_text(one)
    for file in sorted((folder / "heldout").glob("*.*"))[6:]:
        file.unlink()
    settings = {"name": "ink", "data.path": str(folder), "steps": 45, "optim.lr": 1e-3, "preview.prompts": [], "device": "cpu"}
    config = changed(TrainConfig(), {**settings, "out": str(tmp_path / "runs"), "heldout.every": 45, "checkpoint.every": 45})
    result = run.run(config, Store(tmp_path / "home")).result
    found = [one["image"] for one in result["outliers"] if one["reason"] == "caption"]
    assert {"fox.png", "key.png"} <= set(found[:4]), result["outliers"]
