"""Launchers of Hydra, and a sweep from the command line to a grid: real runs of a tiny base, in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A training of two steps on a tiny sd1, with held-out pairs."""
    place = tmp_path_factory.mktemp("sweep")
    base = tiny.tiny_sd1(place / "tiny")
    images = tiny.tiny_dataset(place / "discs")
    tiny.tiny_dataset(images / "heldout", 2, seed=5)
    settings = ["resolution=32", "steps=2", "batch_size=2", "preview.prompts=[]", "heldout.every=1", "checkpoint.every=2", "device=cpu"]
    return [f"base={base}", f"data.path={images}", *settings]


def loraloom(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LORALOOM_HOME": str(folder / "home"), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run([sys.executable, "-m", "loraloom", *argv], cwd=folder, env=environment, capture_output=True, text=True)


def swept(folder: Path, argv: Sequence[str]) -> dict[str, Any]:
    done = loraloom(folder, "train", "-m", *argv)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(Path(done.stdout.splitlines()[-1], "result.json").read_text())
    return result


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit", "ray"])
def test_a_launcher_runs_two_trainings(words: list[str], tmp_path: Path, launcher: str) -> None:
    result = swept(tmp_path, [*words, "lora.rank=1,2", f"hydra/launcher={launcher}"])
    assert [(run["exit_code"], run["reference"]) for run in result["runs"]] == [(0, "discs@lora.rank=1"), (0, "discs@lora.rank=2")]
    assert all(Path(run["folder"], "discs@lora.rank=1.safetensors").is_file() for run in result["runs"][:1])


@pytest.mark.slow
def test_a_sweep_is_drawn_as_one_grid(words: list[str], tmp_path: Path) -> None:
    result = swept(tmp_path, [*words, "lora.rank=2,1"])
    assert result["best"]["value"] == min(run["value"] for run in result["runs"])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["discs@lora.rank=1", "discs@lora.rank=2", "sweeps"]
    done = loraloom(tmp_path, "grid", words[0], "prompt=a disc", 'axes.adapter=["none","discs@lora.rank=*"]', "dry_run=true", "--json")
    assert done.returncode == 0, done.stderr
    assert [value.partition(":")[0] for value in json.loads(done.stdout)["axes"]["adapter"]] == [
        "none",
        "discs@lora.rank=1",
        "discs@lora.rank=2",
    ]


@pytest.mark.slow
def test_a_search_needs_held_out_images(words: list[str], tmp_path: Path) -> None:
    images = Path(words[1].partition("=")[2])
    argv = [*words[:1], f"data.path={images / 'heldout'}", *words[2:], "hydra/sweeper=optuna", "optim.lr=tag(log, interval(1e-5,1e-2))"]
    done = loraloom(tmp_path, "train", "-m", *argv)
    assert done.returncode == 2
    assert "there are no held-out images. Give heldout.share=0.1" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_search_over_the_learning_rate(words: list[str], tmp_path: Path) -> None:
    space = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=tag(log, interval(1e-5,1e-2))"]
    result = swept(tmp_path, [*words, *space])
    assert result["runs"][0]["settings"]["optim.lr"] == 1e-4  # the config's own
    assert result["best"]["value"] == min(run["value"] for run in result["runs"])
