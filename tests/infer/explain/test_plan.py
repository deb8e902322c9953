"""What explaining an image takes: the settings it is drawn with, and what is refused before anything is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from infer.explain.explain import explain
from infer.explain.plan import plan_explanation
from infer.grid.config import GridConfig
from loraloom.cli import main
from registry.errors import BadFile, Faults, Refused
from tests.infer.conftest import Shelf
from tests.infer.explain.test_explain import drawn, pixels
from tests.infer.images import square
from tests.infer.metadata.images import png

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


@pytest.mark.slow
def test_a_word_that_no_prompt_has_is_named(shelf: Shelf, given: dict[str, Any]) -> None:
    image = drawn(shelf, **{**given, "prompt": "a cat", "init": None, "strength": None, "controls": None})
    plan = plan_explanation(image, shelf.store)
    assert "soft (softness)" in plan.why_not["embedding"] and {one.what for one in plan.variants} == {"negative", "guidance"}


@pytest.mark.slow
def test_settings_take_the_place_of_what_an_image_says(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = png(tmp_path / "a.png", parameters="a cat\nSteps: 9, Sampler: Euler, CFG scale: 1, Seed: 7, Size: 32x32, Model: unknown")
    with pytest.raises(Faults, match="base=NAME"):
        plan_explanation(image, shelf.store)
    assert main(["explain", str(image), "--set", "base=tiny", "steps=2", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["drawn_steps"] == [2] and plan["from"]["settings"]["seed"] == 7 and "were given: base, steps" in " ".join(plan["notes"])
    with pytest.raises(Refused, match="give 2 images"):
        plan_explanation(image, shelf.store, settings=GridConfig(base="tiny", repeats=2), given=["base", "repeats"])
    own = drawn(shelf)
    changed = plan_explanation(own, shelf.store, frames=2, settings=GridConfig(seed=6), given=["seed"])
    found = explain(changed)
    assert found.file is not None and found.file.difference is not None and (numpy.asarray(found.file.image) == pixels(own)).all()
    assert any("because they were given: seed" in note for note in found.notes)


def test_what_cannot_be_explained_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    square((0, 0, 0)).save(tmp_path / "plain.png")
    with pytest.raises(BadFile, match="says nothing of how it was made"):
        plan_explanation(tmp_path / "plain.png", shelf.store)
    image = drawn(shelf)
    with pytest.raises(Refused, match="Expected 2 to 64"):
        plan_explanation(image, shelf.store, frames=1)
    with pytest.raises(Refused, match="A prompt to compare with is empty"):
        plan_explanation(image, shelf.store, against=[" "])
