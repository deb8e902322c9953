"""Several processes under torch's launcher (what `accelerate launch` starts on GPUs), here on the CPU over gloo."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from registry.store import Store
from tests import tiny
from train import run
from train.config import DataConfig, HeldoutConfig, OptimConfig, TrainConfig, to_yaml
from train.settings.ema import EmaConfig
from train.settings.tokens import TokensConfig

ROOT = Path(__file__).parents[3]


def two_processes(config: TrainConfig, tmp_path: Path, **environment: str) -> dict[str, torch.Tensor]:
    """The adapter of a run of two processes, and the vectors of its new tokens."""
    (tmp_path / "settings.yaml").write_text(to_yaml(config), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finished = subprocess.run(
        [*launcher, "-m", "tests.train.resumable", str(tmp_path / "home2"), str(tmp_path / "settings.yaml")],
        cwd=ROOT,
        env=os.environ | {"ACCELERATE_USE_CPU": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("prompts as tokenised") == 1, "only the first process prints"
    (folder,) = (Path(config.out) / "discs").iterdir()
    return tensors_of(folder)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """Those of the adapter, and of the embeddings beside it."""
    found = [load_file(file) for file in (folder / "discs.safetensors", *sorted(folder.glob("embeddings/*.safetensors")))]
    return {name: tensor for tensors in found for name, tensor in tensors.items()}


def differing(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> list[str]:
    """The names whose tensors are not those of the other, to rounding; of two that learned nothing all."""
    if not any(bool(tensor.any()) for tensor in one.values()):
        return [*one]
    beyond = {name for name in one.keys() & two.keys() if one[name].shape != two[name].shape or _distance(one[name], two[name]) > 1e-4}
    return sorted(beyond | (one.keys() ^ two.keys()))


def _distance(one: torch.Tensor, two: torch.Tensor) -> float:
    """Sums in another order; Adam's steps are of size 1e-2. Infinite where a number is none."""
    return float((one - two).abs().nan_to_num(torch.inf).max())


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_twice_the_batch(settings: Callable[..., TrainConfig], tmp_path: Path) -> None:
    alone = run.run(settings(batch_size=4, steps=6, out=str(tmp_path / "one")), Store(tmp_path / "home"))
    two = two_processes(settings(batch_size=2, steps=6, out=str(tmp_path / "two")), tmp_path)
    assert differing(load_file(alone.result["files"]["diffusers"]), two) == []


@pytest.mark.slow
def test_two_processes_agree_with_one_on_short_batches_of_several_sizes_and_the_average(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """Three passes of two processes are six of one: the same batches, of 2 and of 1 image, in one mean over the step's images."""
    folder = tiny.tiny_dataset(tmp_path / "mixed", 8)
    for number in range(3):
        place = folder / f"{number:03d}.png"
        Image.open(place).resize((64, 16)).save(place)
    shared = {
        "data": DataConfig(path=str(folder)),
        "batch_size": 2,
        "steps": 4,
        "ema": EmaConfig(decay=0.9),
        "heldout": HeldoutConfig(share=0.0),
    }
    one = settings(accumulate=6, out=str(tmp_path / "one"), **shared)
    alone = run.run(one, Store(tmp_path / "home"))
    two = two_processes(settings(accumulate=3, out=str(tmp_path / "two"), **shared), tmp_path)
    assert differing(load_file(alone.result["files"]["diffusers"]), two) == []


@pytest.mark.slow
def test_two_processes_agree_with_one_on_tokens_and_class_images_that_one_of_them_draws(
    settings: Callable[..., TrainConfig], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {
        "data": DataConfig(path=str(images), trigger="<ab>", prior_images=2, prior_prompt="a disc", prior_weight=0.5),
        "tokens": TokensConfig(add=[{"token": "<ab>", "init": "ox"}], share=0.5),
        "heldout": HeldoutConfig(share=0.0),
        "steps": 4,
    }
    two = two_processes(
        settings(accumulate=2, batch_size=1, out=str(tmp_path / "two"), **shared), tmp_path, LORALOOM_HOME=str(tmp_path / "loom")
    )
    assert len(list((tmp_path / "loom" / "cache" / "prior").glob("*/*.png"))) == 2
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "loom"))
    alone = run.run(settings(accumulate=4, batch_size=1, out=str(tmp_path / "one"), **shared), Store(tmp_path / "home"))
    one = tensors_of(alone.folder)
    assert "emb_params" in one and differing(one, two) == []


@pytest.mark.slow
def test_two_processes_stop_early_after_the_same_step(settings: Callable[..., TrainConfig], tmp_path: Path) -> None:
    heldout = HeldoutConfig(every=2, patience=1)
    two_processes(settings(steps=8, optim=OptimConfig(lr=1e-9), heldout=heldout, out=str(tmp_path / "two")), tmp_path)
    (folder,) = (tmp_path / "two" / "discs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["stopped_early"]["step"] == 2 == result["steps"]
