"""A run with masks and differential output preservation resumes to the same bytes, in buckets of unequal batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests import tiny
from tests.train.loop.test_resume import saved
from train.config import DataConfig, ObjectiveConfig, TrainConfig
from train.loop import checkpoint
from train.loop.saved_state import restore
from train.output import export


@pytest.mark.slow
def test_a_resume_gives_the_same_bytes(
    settings: Callable[..., TrainConfig], prepared: Callable[[TrainConfig], Any], tmp_path: Path
) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 5)
    Image.new("RGB", (64, 32), (9, 99, 200)).save(folder / "000.png")
    for number in range(5):
        with Image.open(folder / f"{number:03d}.png") as image:
            mask = Image.new("L", image.size, 0)
        mask.paste(255, (0, 0, mask.width // 2, mask.height))
        mask.save(folder / f"{number:03d}-masklabel.png")
    config = settings(
        data=DataConfig(path=str(folder), masks="files", trigger="sks"),
        objective=ObjectiveConfig(preserve_class="a disc"),
        accumulate=2,
        steps=4,
    )
    straight, resumed = prepared(config).state, prepared(config).state
    for step in range(4):
        straight.step(step)
        if step == 1:
            place = saved(straight, tmp_path)
    found = checkpoint.read(place)
    restore(resumed, found, export.read_adapter(found.adapter))
    for step in (2, 3):
        resumed.step(step)
    for (_, one), (_, other) in zip(straight.weights, resumed.weights, strict=True):
        assert torch.equal(one, other)
