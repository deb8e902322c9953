"""Runs on images of several shapes: nothing dropped, the mean over images kept, the same bits after a stop and from the cache."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from registry.store import Store
from tests import tiny
from tests.train.conftest import stopped
from train import run
from train.config import CheckpointConfig, DataConfig, TrainConfig, to_yaml
from train.data.dataset import Sample
from train.loop.batches import Batch
from train.output import folder as run_folder

Settings = Callable[..., TrainConfig]
SIZES = [(40, 40), (40, 41), (36, 36), (80, 40), (90, 45), (40, 80), (33, 66)]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Seven pairs: three about square, two wide, two tall."""
    folder = tiny.tiny_dataset(tmp_path / "mixed", len(SIZES))
    for file, size in zip(sorted(folder.glob("*.png")), SIZES, strict=True):
        with Image.open(file) as image:
            image.resize(size).save(file)
    return folder


def test_the_plan_accounts_for_every_image_by_name(mixed: Path, settings: Settings, store: Store) -> None:
    plan = run.plan(settings(data=DataConfig(path=str(mixed))), store)
    found = plan.to_json()
    assert found["buckets"] == [
        {"width": 32, "height": 32, "images": 3, "names": ["000.png", "001.png", "002.png"]},
        {"width": 24, "height": 40, "images": 2, "names": ["005.png", "006.png"]},
        {"width": 40, "height": 24, "images": 2, "names": ["003.png", "004.png"]},
    ]
    assert found["cropped_share"] < found["cropped_share_square"]
    assert "1 image of an epoch in a batch of fewer than 2" in plan.to_text()


def test_a_step_is_the_mean_over_its_images_each_by_its_weight(
    mixed: Path, settings: Settings, prepared: Callable[[TrainConfig], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses 0, 1, 2, ... x p: the gradient of p is the mean of the numbers of the step's images, in passes of two and of one."""
    state = prepared(settings(data=DataConfig(path=str(mixed)), accumulate=3)).state
    weight = state.weights[0][1]

    def losses(_step: int, batch: Batch, *, of: int) -> tuple[torch.Tensor, torch.Tensor]:
        return weight.flatten()[0] * torch.tensor([float(item) for item in batch.items]), torch.zeros(len(batch.items))

    monkeypatch.setattr(state, "_pass", losses)
    seen: set[int] = set()
    for step in range(4):
        items = [item for turn in state.order.step(step) for batch in turn for item in batch.items]
        seen.add(len(items))
        for heavy in (1.0, 3.0):  # the weight of image 2
            state.items = [replace(item, sample=_weighing(item.sample, heavy)) for item in state.items]
            state.config.optim.clip = 0.0
            state.step(step)
            mean = sum((heavy if item == 2 else 1.0) * item for item in items) / len(items)
            assert float(weight.grad.flatten()[0]) == pytest.approx(mean, rel=1e-6)
    assert 5 in seen  # of six: one batch is short


def _weighing(sample: Sample, weight: float) -> Sample:
    return replace(sample, weight=weight) if sample.name == "002.png" else sample


@pytest.mark.slow
def test_a_stop_and_the_cache_change_no_bit(
    mixed: Path, settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = CheckpointConfig(every=3)
    data = DataConfig(path=str(mixed))
    straight = run.run(settings(data=data, accumulate=2, steps=6, out=str(tmp_path / "straight"), checkpoint=every), store)
    folder = stopped(settings(data=data, accumulate=2, steps=6, out=str(tmp_path / "stopped"), checkpoint=every), store, at=4)
    run.resume(folder, {"data.memory": 0.0}, store)
    one, two = (load_file(place / "discs.safetensors") for place in (straight.folder, folder))
    assert one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (straight.folder, folder)]
    assert rows[0] == rows[1]


def test_a_run_from_before_buckets_goes_on_with_squares(settings: Settings, tmp_path: Path) -> None:
    text = to_yaml(settings())
    (tmp_path / run_folder.CONFIG).write_text(text, encoding="utf-8")
    assert run_folder.read_config(tmp_path).data.buckets
    (tmp_path / run_folder.CONFIG).write_text(text.replace("  buckets: true\n", ""), encoding="utf-8")
    assert not run_folder.read_config(tmp_path).data.buckets
