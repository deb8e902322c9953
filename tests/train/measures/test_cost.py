"""What is measured beside the held-out loss, counted; and a run that measures all of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry.store import Store
from tests.train.conftest import short_run
from train import run
from train.config import CheckpointConfig, DataConfig, HeldoutConfig, PreviewConfig, TrainConfig
from train.data.split import TrainSplit
from train.measures.cost import measured_beside


class Named:
    """A sample as far as it is counted."""

    prior = False
    trigger = None


def test_images_through_the_denoiser_are_counted() -> None:
    train, held = tuple(Named() for _ in range(40)), tuple(Named() for _ in range(3))
    split = TrainSplit(train, held, "")  # type: ignore[arg-type]
    config = TrainConfig(
        data=DataConfig(trigger="sks"), heldout=HeldoutConfig(generic=["a bus"]), preview=PreviewConfig(prompts=["x"], steps=20)
    )
    prompts = ["sks, a", "a sks", "b"]
    assert measured_beside(split, prompts, config, guided=True) == (2 * 4, 32 * 2 + 1 * 2, 40 * 2 + 4 * 8 * 4 + 1 * 8 * 2)
    assert measured_beside(split, ["a", "b", "c"], TrainConfig(), guided=False) == (0, 64, 80 + 128)


@pytest.mark.slow
def test_a_run_keeps_what_it_measured_and_the_plan_counts_it(base: Path, images: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    config = short_run(
        base,
        images,
        tmp_path / "runs",
        data=DataConfig(path=str(images), trigger="sks"),
        preview=PreviewConfig(prompts=["a disc"], steps=1),
        checkpoint=CheckpointConfig(every=2),
        heldout=HeldoutConfig(every=1),
    )
    more, less = run.plan(config, store), run.plan(short_run(base, images, tmp_path / "runs"), store)
    assert more.config.heldout.generic == ["a horse", "a cup of coffee", "a bus", "a guitar"] and "'a horse'" in more.to_text()
    parts = [plan.estimate.seconds for plan in (more, less)]
    assert parts[0] and parts[1] and parts[0]["held-out loss"] > parts[1]["held-out loss"]
    outcome = run.run(config, store)
    verdict: dict[str, Any] = outcome.result["verdict"]
    assert verdict["trigger"]["words"] == ["sks"] and verdict["drift"]["share"] is not None and verdict["delta_norm"]["share"] > 0
    assert isinstance(outcome.result["outliers"], list) and outcome.result["stopped_early"] is None
    rows = [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]
    named = {name for row in rows for name in row if row["step"] == 4}
    assert {"trigger_share", "delta_norm", "delta_norm_largest", "heldout_generic"} <= named
    kept = [json.loads(line) for line in (outcome.folder / "images.jsonl").read_text().splitlines()]
    assert sorted({row["step"] for row in kept}) == [0, 2, 4] and len(kept) == 18
    assert all((row["other"] is not None) == (row["step"] == 2) for row in kept)
