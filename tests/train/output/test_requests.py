"""Requests to a running training: done once, after the next step, and without a trace in what is learned."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from registry.errors import Refused
from registry.files.progress_file import read_progress
from registry.progress import Tick
from registry.store import Store
from tests.patience import PATIENCE
from train import run
from train.config import CheckpointConfig, PreviewConfig, TrainConfig, to_yaml
from train.loop.interrupt import Interrupted
from train.output.folder import held
from train.output.requests import Requests, ask
from train.settings.ema import EmaConfig

Settings = Callable[..., TrainConfig]
ROOT = Path(__file__).parents[3]


def only_run(out: Path) -> Path:
    (folder,) = (entry for entry in (out / "discs").iterdir() if not entry.name.startswith("."))
    return folder


def seed_everything() -> None:
    """The global generators, which checkpoints hold: a request must not draw from them either."""
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)


def asking(out: Path, wishes: dict[int, list[str]]) -> Callable[[Tick], None]:
    """A Report that asks for things when a step was reported; the loop sees them at the end of the next one."""

    def report(tick: Tick) -> None:
        for kind in wishes.pop(tick.done, []) if tick.stage == "train" else []:
            ask(only_run(out), kind)

    return report


def test_nobody_is_asked_where_no_process_trains(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(settings()), encoding="utf-8")
    with pytest.raises(Refused, match="No process trains in"):
        ask(tmp_path, "save")
    with held(tmp_path):
        with pytest.raises(Refused, match="no previews to draw"):
            ask(tmp_path, "sample")
        ask(tmp_path, "save")
        ask(tmp_path, "save")
        assert Requests(tmp_path).pending() == {"save"}
        (tmp_path / "requests" / "else").touch()
        assert Requests(tmp_path).pending() == {"save"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.yaml", "requests"]


@pytest.mark.slow
def test_what_is_asked_for_changes_nothing_that_is_learned(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    shared = {
        "steps": 4,
        "checkpoint": CheckpointConfig(every=2, keep=1),
        "preview": PreviewConfig(prompts=["a disc"], every=4, steps=1),
        "ema": EmaConfig(decay=0.9),
    }
    seed_everything()
    plain = run.run(settings(out=str(tmp_path / "plain"), **shared), store)
    seed_everything()
    lines: list[str] = []
    report = asking(tmp_path / "asked", {0: ["save", "sample"], 2: ["sample"]})
    asked = run.run(settings(out=str(tmp_path / "asked"), **shared), store, report=report, out=lines.append)

    assert "step 1: checkpoint saved, as requested; checkpoint.keep leaves it" in lines and "step 3: previews drawn, as requested" in lines
    names = [sorted(entry.name for entry in (folder / "checkpoints").iterdir()) for folder in (plain.folder, asked.folder)]
    assert sorted({*names[1]} - {*names[0]}) == ["step-000001"] and "step-000004" in names[0]
    assert [f"step-{step:06d}-01.png" for step in (0, 1, 3, 4)] == sorted(entry.name for entry in (asked.folder / "samples").iterdir())
    assert not (asked.folder / "requests").exists() and not (asked.folder / "progress.json").exists()
    for name in ("discs.safetensors", "checkpoints/step-000004/adapter.safetensors", "checkpoints/step-000004/training.pt"):
        assert (plain.folder / name).read_bytes() == (asked.folder / name).read_bytes(), name
    assert (plain.folder / "metrics.jsonl").read_bytes() == (asked.folder / "metrics.jsonl").read_bytes()
    assert plain.result["heldout"] == asked.result["heldout"]

    again = tmp_path / "again" / "discs" / "one"
    shutil.copytree(asked.folder, again)
    for name in ("result.json", "discs.safetensors", "discs-kohya.safetensors"):
        (again / name).unlink()
    for place in (again / "checkpoints").iterdir():
        if place.name != "step-000001":
            shutil.rmtree(place)
    run.resume(again, {}, store)
    assert (again / "discs.safetensors").read_bytes() == (plain.folder / "discs.safetensors").read_bytes()


@pytest.mark.slow
def test_a_stop_that_is_asked_for_is_a_first_ctrl_c(settings: Settings, store: Store, tmp_path: Path) -> None:
    seen = []

    def out(line: str) -> None:
        seen.append((line, read_progress(only_run(tmp_path / "runs") / "progress.json")) if "stopped" in line else (line, None))

    with pytest.raises(Interrupted, match=r"Stopped by a request after step 2 of 4\. The checkpoint is saved; resume with"):
        run.run(settings(steps=4, checkpoint=CheckpointConfig(every=4)), store, report=asking(tmp_path / "runs", {1: ["stop"]}), out=out)
    folder = only_run(tmp_path / "runs")
    assert [entry.name for entry in (folder / "checkpoints").iterdir()] == ["step-000002"]
    assert not (folder / "checkpoints" / "step-000002" / "requested").exists() and not (folder / "requests").exists()
    ((_, progress),) = [one for one in seen if one[1] is not None]
    assert progress is not None and (progress.stage, progress.total) == ("train", 4) and not (folder / "progress.json").exists()

    (folder / "requests").mkdir()
    (folder / "requests" / "stop").touch()  # what is left of a process that was killed is not answered
    assert run.resume(folder, {}, store).result["steps"] == 4


@pytest.mark.slow
def test_two_processes_agree_on_what_is_asked_for(settings: Settings, tmp_path: Path) -> None:
    config = settings(steps=3000, preview=PreviewConfig(prompts=["a disc"], every=3000, steps=1))
    (tmp_path / "settings.yaml").write_text(to_yaml(config), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.Popen(
        [*launcher, "-m", "tests.train.resumable", str(tmp_path / "home"), str(tmp_path / "settings.yaml")],
        cwd=ROOT,
        env=os.environ | {"ACCELERATE_USE_CPU": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    waiting = {"held-out loss of the base": ["sample", "save"], "as requested; checkpoint.keep": ["stop"]}
    try:
        for line in process.stdout:
            lines.append(line)
            for words in [words for words in waiting if words in line]:
                for kind in waiting.pop(words):
                    ask(only_run(tmp_path / "runs"), kind)
        process.wait(timeout=PATIENCE)
    finally:
        process.kill() if process.poll() is None else None
    text = "".join(lines)
    assert not waiting and "previews drawn, as requested" in text and "Stopped by a request after step" in text, text[-3000:]
    kept = sorted((only_run(tmp_path / "runs") / "checkpoints").iterdir())
    assert len(kept) == 2 and [(place / "requested").exists() for place in kept] == [True, False]
