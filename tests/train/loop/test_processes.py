"""Several processes under torch's launcher (what `accelerate launch` starts on GPUs), here on the CPU over gloo."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from registry.store import Store
from train import run
from train.config import TrainConfig, to_yaml

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_twice_the_batch(settings: Callable[..., TrainConfig], tmp_path: Path) -> None:
    alone = run.run(settings(batch_size=4, steps=6, out=str(tmp_path / "one")), Store(tmp_path / "home"))
    (tmp_path / "settings.yaml").write_text(to_yaml(settings(batch_size=2, steps=6, out=str(tmp_path / "two"))), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finished = subprocess.run(
        [*launcher, "-m", "tests.train.resumable", str(tmp_path / "home2"), str(tmp_path / "settings.yaml")],
        cwd=ROOT,
        env=os.environ | {"ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("prompts as tokenised") == 1, "only the first process prints"
    (folder,) = (tmp_path / "two" / "discs").iterdir()
    one, two = load_file(alone.result["files"]["diffusers"]), load_file(folder / "discs.safetensors")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-4)  # sums in another order; Adam's steps are of size 1e-2
