"""Launchers of Hydra, which start processes of their own, and a sweep from the command line to a grid: real runs of a tiny base."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.cli import main
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


Answer = tuple[int, str, str]


@pytest.fixture
def loraloom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs a command in an empty folder, in this process; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))

    def run(*argv: str) -> Answer:
        code = main([*argv])
        return code, *capsys.readouterr()

    return run


def result_of(stdout: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(Path(stdout.splitlines()[-1], "result.json").read_text())
    return result


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit", "ray"])
def test_a_launcher_runs_two_trainings(words: list[str], tmp_path: Path, launcher: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LORALOOM_HOME": str(tmp_path / "home"), "RAY_USAGE_STATS_ENABLED": "0"}
    argv = [sys.executable, "-m", "loraloom", "train", "-m", *words, "lora.rank=1,2", f"hydra/launcher={launcher}"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = result_of(done.stdout)
    assert [(run["exit_code"], run["reference"]) for run in result["runs"]] == [(0, "discs@lora.rank=1"), (0, "discs@lora.rank=2")]
    assert all(Path(run["folder"], "discs@lora.rank=1.safetensors").is_file() for run in result["runs"][:1])


@pytest.mark.slow
def test_a_sweep_is_drawn_as_one_grid(words: list[str], tmp_path: Path, loraloom: Callable[..., Answer]) -> None:
    code, out, err = loraloom("train", "-m", *words, "lora.rank=2,1")
    assert code == 0, err
    result = result_of(out)
    assert result["best"]["value"] == min(run["value"] for run in result["runs"])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["discs@lora.rank=1", "discs@lora.rank=2", "sweeps"]
    code, out, err = loraloom("grid", words[0], "prompt=a disc", 'axes.adapter=["none","discs@lora.rank=*"]', "dry_run=true", "--json")
    assert code == 0, err
    assert [value.partition(":")[0] for value in json.loads(out)["axes"]["adapter"]] == [
        "none",
        "discs@lora.rank=1",
        "discs@lora.rank=2",
    ]


@pytest.mark.slow
def test_a_search_needs_held_out_images(words: list[str], tmp_path: Path, loraloom: Callable[..., Answer]) -> None:
    images = Path(words[1].partition("=")[2])
    argv = [*words[:1], f"data.path={images / 'heldout'}", *words[2:], "hydra/sweeper=optuna", "optim.lr=tag(log, interval(1e-5,1e-2))"]
    code, _, err = loraloom("train", "-m", *argv)
    assert code == 2
    assert "there are no held-out images. Give heldout.share=0.1" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_search_over_the_learning_rate(words: list[str], loraloom: Callable[..., Answer]) -> None:
    space = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=tag(log, interval(1e-5,1e-2))"]
    code, out, err = loraloom("train", "-m", *words, *space)
    assert code == 0, err
    result = result_of(out)
    assert result["runs"][0]["settings"]["optim.lr"] == 1e-4  # the config's own
    assert result["best"]["value"] == min(run["value"] for run in result["runs"])
