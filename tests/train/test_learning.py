"""Learning on the embedded base, with the demo's set: what a person would see, in numbers."""

import json
from pathlib import Path

import pytest

from registry.home import pocket_dir
from registry.store import Store
from train import run
from train.config import DataConfig, LoraConfig, OptimConfig, PreviewConfig, TrainConfig

INK = Path(__file__).parents[2] / "datasets" / "ink"


@pytest.mark.slow
def test_learning_the_ink_set_lowers_the_held_out_loss_below_the_base_s(tmp_path: Path) -> None:
    assert (pocket_dir() / "model_index.json").is_file(), "the embedded base is needed; LORALOOM_POCKET names another place"
    config = TrainConfig(
        name="ink",
        data=DataConfig(path=str(INK)),
        steps=60,
        batch_size=4,
        lora=LoraConfig(rank=8),
        optim=OptimConfig(lr=1e-3),
        preview=PreviewConfig(prompts=["a cat"], steps=4),
        device="cpu",
        out=str(tmp_path / "runs"),
    )
    reported: list[str] = []
    outcome = run.run(config, Store(tmp_path / "home"), out=reported.append)
    heldout = outcome.result["heldout"]
    assert heldout["final"] < 0.97 * heldout["base"]
    assert any("better than the base" in line for line in reported[-4:]) and outcome.result["outliers"] == []
    rows = [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "heldout_difference_high" in row][-1]
    assert last["heldout_difference_high"] < 0, "the whole interval lies below the base"
