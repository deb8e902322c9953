"""A slider on `pocket`, trained without images: its two ends differ in the right direction, and its middle is the base's image."""

from pathlib import Path

import pytest
from PIL import Image, ImageStat

from registry.store import Store
from train import run
from train.config import (
    CheckpointConfig,
    DataConfig,
    LoraConfig,
    ObjectiveConfig,
    ObjectiveParams,
    OptimConfig,
    PreviewConfig,
    TrainConfig,
)

PROMPTS = ["a cat", "a red apple", "a house"]
SIDE = 64
STEPS = 30


def ends(path: Path) -> list[Image.Image]:
    """The images at weights -1, 0 and 1."""
    row = Image.open(path)
    return [row.crop((SIDE * place, 0, SIDE * (place + 1), SIDE)) for place in range(3)]


def blueness(image: Image.Image) -> float:
    """Mean of blue minus the mean of red and green, over the frame of 6 pixels around the image: its background."""
    frame = Image.new("L", image.size, 255)
    frame.paste(0, (6, 6, SIDE - 6, SIDE - 6))
    red, green, blue = ImageStat.Stat(image, frame).mean
    return blue - (red + green) / 2


@pytest.mark.slow
def test_the_ends_of_a_background_slider_on_pocket(tmp_path: Path) -> None:
    config = TrainConfig(
        name="background",
        data=DataConfig(),
        steps=STEPS,
        batch_size=2,
        lora=LoraConfig(rank=4),
        optim=OptimConfig(lr=5e-3),
        objective=ObjectiveConfig(
            name="slider",
            params=ObjectiveParams(positive="on a blue background", negative="on a yellow background", guidance=3.0, draw_steps=4),
        ),
        checkpoint=CheckpointConfig(every=STEPS),
        preview=PreviewConfig(prompts=PROMPTS, steps=12, guidance=4.0, every=STEPS),
        device="cpu",
        out=str(tmp_path),
    )
    outcome = run.run(config, Store(tmp_path / "home"))
    reached = outcome.result["slider"]
    assert reached["reached"]["low"] > 0 and reached["cosine"] > 0
    gaps = []
    for number in range(1, len(PROMPTS) + 1):
        before = ends(outcome.folder / "samples" / f"step-000000-{number:02d}.png")
        less, base, more = ends(outcome.folder / "samples" / f"step-{STEPS:06d}-{number:02d}.png")
        assert base.tobytes() == before[0].tobytes() == before[1].tobytes() == before[2].tobytes()
        assert blueness(more) > blueness(base) > blueness(less)
        gaps.append(blueness(more) - blueness(less))
    assert min(gaps) > 40, gaps
