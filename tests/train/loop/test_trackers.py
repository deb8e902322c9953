import json
import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import JobFailed, Refused, UnknownName
from train.config import TrainConfig
from train.loop.trackers import open_trackers, read_metrics, trackers_of


def test_jsonl_is_always_there_and_names_are_answered() -> None:
    assert trackers_of("wandb") == ["jsonl", "wandb"] and trackers_of("jsonl") == ["jsonl"]
    with pytest.raises(UnknownName, match="Did you mean 'tensorboard'"):
        trackers_of("jsonl+tensorbord")


def log(folder: Path, steps: list[int], *, after: int) -> None:
    for tracker in open_trackers(folder, TrainConfig(), after=after):
        tracker.log([{"step": step, "loss": float(step)} for step in steps])
        tracker.close()


def test_a_resume_forgets_the_rows_behind_its_checkpoint(tmp_path: Path) -> None:
    log(tmp_path, [1, 2, 3, 4], after=0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    log(tmp_path, [3, 4, 5], after=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    log(tmp_path, [1], after=0)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[1]", b'{"loss": 1}', b'{"step": true}', b'{"step": 1, "loss": "low"}', b'{"step": 1, "lr": null}']
)
def test_a_damaged_row_is_named_by_its_line(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 0.5}\n' + line + b'\n{"step": 2, "loss": 0.5}\n')
    with pytest.raises(JobFailed, match=r"metrics\.jsonl, line 2, is damaged"):
        read_metrics(tmp_path)


def test_a_mode_that_wandb_has_not_is_refused_with_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(Refused, match=r"WANDB_MODE=ofline is no mode of wandb\. Did you mean 'offline'"):
        trackers_of("wandb")
    assert trackers_of("jsonl") == ["jsonl"]
    monkeypatch.setenv("WANDB_MODE", "")
    assert trackers_of("wandb") == ["jsonl", "wandb"]


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        open_trackers(tmp_path, TrainConfig(), after=0)[0].log([{"step": 1, "loss": float("nan")}])


@pytest.mark.slow
def test_wandb_and_tensorboard_write_into_the_run_folder(tmp_path: Path) -> None:
    config = TrainConfig(name="ink", tracker="wandb+tensorboard")
    for tracker in open_trackers(tmp_path, config, after=0):
        tracker.log([{"step": 1, "loss": 0.5, "lr": 1e-4}, {"step": 2, "loss": 0.4, "lr": 1e-4}])
        tracker.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(offline.glob("*.wandb"))
    assert [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0.5, 0.4]


@pytest.mark.slow
def test_a_sync_of_a_resumed_wandb_run_sends_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with wandb's own reader, from the only file that `wandb sync` finds."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = TrainConfig(name="ink", tracker="wandb+tensorboard")
    for after, steps in ((0, [1, 2, 3]), (2, [3, 4])):
        for tracker in open_trackers(tmp_path, config, after=after):
            tracker.log([{"step": step, "loss": step / 8} for step in steps])
            tracker.close()
    wandb = [sys.executable, "-m", "wandb"]
    listed = subprocess.run([*wandb, "sync", "--dry-run", str(tmp_path / "wandb")], capture_output=True, text=True, check=True)
    assert "Would sync 1 run" in listed.stdout + listed.stderr
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    read = subprocess.run([*wandb, "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True)
    rows = [record["history"]["item"] for line in read.stdout.splitlines() if '"history"' in line and (record := json.loads(line))]
    assert [(row["_step"], row["loss"]) for row in rows] == [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5)]


def test_a_tracker_that_a_resume_adds_has_the_rows_before_it(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for after, name in ((0, "jsonl"), (2, "tensorboard")):
        for tracker in open_trackers(tmp_path, TrainConfig(tracker=name), after=after):
            tracker.log([{"step": after + number, "loss": 0.5} for number in (1, 2)])
            tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
