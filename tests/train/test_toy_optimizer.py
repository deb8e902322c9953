"""A new optimizer with an option is one decorated function: added to a copy of the sources, it trains from the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = '''

@OPTIMIZERS.add("toy")
def toy(groups: Groups, lr: float, *, push: Annotated[float, Meaning("factor on every update", 0.0)] = 1.0) -> Optimizer:
    """Gradient descent with a factor."""
    import torch

    return torch.optim.SGD(list(groups), lr=lr * push)
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with the toy in train/optim.py: the one file that is edited."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("registry", "infer", "train", "loraloom", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")  # what tells a checkout from an installed package
    with (folder / "train" / "optim.py").open("a", encoding="utf-8") as file:
        file.write(TOY)
    return folder


def loraloom(copy: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "LORALOOM_HOME": str(home)}
    return subprocess.run([sys.executable, "-m", "loraloom", *arguments], cwd=copy, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_option_is_a_setting_with_its_help(copy: Path, tmp_path: Path) -> None:
    rows = json.loads(loraloom(copy, tmp_path, "train", "--help", "--json").stdout)["settings"]
    (row,) = (row for row in rows if row["name"] == "optim.params.push")
    assert row["help"] == "toy: factor on every update (default 1.0)" and row["type"] == "a number or null"


@pytest.mark.slow
def test_a_misspelt_option_and_one_out_of_range_are_answered(copy: Path, tmp_path: Path) -> None:
    misspelt = loraloom(copy, tmp_path, "train", "optim.name=toy", "optim.params.psh=2")
    assert misspelt.returncode == 2 and "Did you mean 'optim.params.push'" in misspelt.stderr
    below = loraloom(copy, tmp_path, "train", "base=/no/model", "optim.name=toy", "dry_run=true", "optim.params.push=-2")
    assert below.returncode == 2 and "optim.params.push must be a number of at least 0, got -2.0" in below.stderr


@pytest.mark.slow
def test_it_trains_with_the_option(copy: Path, base: Path, images: Path, tmp_path: Path) -> None:
    names = (f"base={base}", f"data.path={images}", "name=discs", "resolution=32", "steps=2", "batch_size=2", "lora.rank=2", "device=cpu")
    toy = ("optim.name=toy", "optim.params.push=2.5", "optim.lr=0.5", "preview.prompts=[]", f"out={tmp_path / 'runs'}")
    done = loraloom(copy, tmp_path, "train", *names, *toy)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert "push: 2.5" in (folder / "config.yaml").read_text() and (folder / "discs.safetensors").is_file()
