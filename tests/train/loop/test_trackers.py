import json
from pathlib import Path

import pytest

from registry.errors import UnknownName
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
