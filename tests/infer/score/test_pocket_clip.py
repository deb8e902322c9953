"""pocket's own CLIP: it finds the prompts of what pocket drew, and is used where no model is given."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.score.given import ready_scores
from infer.score.models.open import open_embedder
from infer.score.scorer import Scene, Subject
from registry.home import pocket_clip_dir, pocket_dir
from train.pocket.prompts import PLAIN

SIDE, STEP, COLUMNS = 64, 66, 10  # of a sheet's tiles, in pixels


def tiles(name: str) -> list[Image.Image]:
    """The images of a sheet of the model card, as pocket drew them."""
    sheet = Image.open(pocket_dir() / "card" / name).convert("RGB")
    corners = [(STEP * (number % COLUMNS), STEP * (number // COLUMNS)) for number in range(len(PLAIN))]
    return [sheet.crop((left, top, left + SIDE, top + SIDE)) for left, top in corners]


@pytest.fixture(scope="module")
def clip() -> Any:
    import torch

    return open_embedder(str(pocket_clip_dir()), device=torch.device("cpu"), texts=True)


@pytest.mark.parametrize(("name", "least"), [("plain.png", 0.9), ("plain-seed8.png", 0.85)])
def test_the_prompt_of_a_drawn_image_is_the_nearest_of_40(clip: Any, name: str, least: float) -> None:
    """Chance is 2.5 %. The sheets are of two seeds; the model card has their figures."""
    cosines = clip.images(tiles(name)) @ clip.texts(PLAIN).T
    assert (cosines.argmax(1) == numpy.arange(40)).mean() >= least


def test_it_is_the_model_of_clip_where_none_is_given() -> None:
    (scorer,) = ready_scores("clip", Scene(prompts=("a cat",)), try_models=True)
    assert scorer.model is not None and Path(str(scorer.model["path"])) == pocket_clip_dir()
    image = tiles("plain.png")[PLAIN.index("a cat")]
    value = scorer.open()
    numbers = [
        value(Subject(key="k", sha256="s", image=lambda: image, prompt=prompt, seconds=None, first=lambda _: None)).value
        for prompt in ("a cat", "a dog", "a house")
    ]
    assert numbers[0] == max(numbers)
