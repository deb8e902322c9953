"""The judgement of real runs: what is drawn and written, what is refused, and a run that learns its images by heart."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.cli import main
from registry.errors import Refused
from registry.store import Store
from tests.train.conftest import short_run
from train import run
from train.config import CheckpointConfig, DataConfig, HeldoutConfig, LoraConfig, OptimConfig, PreviewConfig
from train.judging.run import judge_run, plan_judging
from train.run_report.page import page
from train.run_report.report import make_report

ROOT = Path(__file__).resolve().parents[3]
Settings = Callable[..., Any]


def test_a_run_is_judged_by_the_images_of_its_checkpoints(
    base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three held-out prompts: everything is drawn and measured, and nothing can be told from so few."""
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    preview = PreviewConfig(prompts=["a disc"], steps=2)
    folder = run.run(short_run(base, images, tmp_path / "runs", steps=2, preview=preview), Store(tmp_path / "home")).folder
    given = ["judge", str(folder), "--generic", "a house", "--json"]
    assert main([*given, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    prompts, steps = planned["grids"]["heldout"]["axes"]["prompt"], planned["checkpoints"]
    assert planned["grids"]["heldout"]["to_draw"] == (len(steps) + 1) * len(prompts) * 2 and not (folder / "judgement").exists()
    assert main(given) == 0
    value = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in value["checkpoints"]] == steps and value == json.loads((folder / "judgement.json").read_text())
    assert "cannot tell" in value["sentence"] and value["steps"] == [] and any("too few for intervals" in note for note in value["notes"])
    assert all((Path(grid) / "sheet.png").is_file() for grid in value["grids"])
    assert "These images cannot tell" in page(make_report(folder))
    assert main(given) == 0 and json.loads(capsys.readouterr().out)["checkpoints"] == value["checkpoints"]  # from the store
    (folder / "judgement.json").write_text('{"sentence": 5}')
    assert main(["report", str(folder)]) == 2 and "judgement.json" in capsys.readouterr().err
    shutil.rmtree(folder / "checkpoints")
    (folder / "judgement.json").unlink()
    with pytest.raises(Refused, match="no checkpoints to compare"):
        plan_judging(folder, Store(tmp_path / "home"))


@pytest.mark.slow
def test_a_checkpoint_that_learned_its_images_by_heart_copies_them(tmp_path: Path) -> None:
    """Three drawings, one prompt: the last checkpoint draws them whatever is asked, an early one does not."""
    folder = tmp_path / "three"
    folder.mkdir()
    for name in ("alarm-clock", "fox", "key"):
        shutil.copy(ROOT / "datasets" / "ink" / f"{name}.png", folder)
        (folder / f"{name}.txt").write_text("a drawing")
    store = Store(tmp_path / "home")
    config = short_run(
        Path("pocket"),
        folder,
        tmp_path / "runs",
        name="three",
        data=DataConfig(path=str(folder)),
        resolution=64,
        steps=60,
        batch_size=3,
        lora=LoraConfig(rank=16),
        optim=OptimConfig(lr=4e-3),
        heldout=HeldoutConfig(path=str(ROOT / "datasets" / "ink" / "heldout"), every=60),
        checkpoint=CheckpointConfig(every=10, keep=6),
        preview=PreviewConfig(prompts=[], steps=10),
    )
    place = run.run(config, store).folder
    for step in range(20, 60, 10):
        shutil.rmtree(place / "checkpoints" / f"step-{step:06d}")
    found, value = judge_run(plan_judging(place, store, prompts=5, seeds=1, generic=()), store)
    early, late = found.rows
    assert (early.step, late.step) == (10, 60)
    assert late.near_bits < early.near_bits - 3 and late.copying and not early.copying, value
