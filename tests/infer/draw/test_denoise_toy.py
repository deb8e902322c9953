"""The promise of the seam: a family is one file. A toy, dropped into a copy of the tree, trains, merges and draws with no other edit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_dataset

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("registry", "infer", "train", "loraloom", "conf")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources with the toy family in it, and nothing else changed."""
    tree = tmp_path / "tree"
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", tree)  # by which a checkout is known
    shutil.copy(ROOT / "tests" / "toy_family.py.txt", tree / "registry" / "families" / "toy.py")
    return tree


def loraloom(tree: Path, work: Path, *arguments: str) -> str:
    """The last line of stdout of a command run in the copy; its stderr is shown when it fails."""
    environment = os.environ | {"PYTHONPATH": str(tree), "LORALOOM_HOME": str(work / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "loraloom", *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_toy_family_is_known_by_the_names_that_its_own_file_gives_it(tree: Path, tmp_path: Path) -> None:
    """One adapter whose keys no family claims: named by ModelSpec, by sd-scripts, by Civitai, and not at all."""
    from registry.detect.inspect import inspect
    from tests.registry.made import model

    keys = {"lora_unet_a.lora_down.weight": (4, 8), "lora_unet_a.lora_up.weight": (8, 4)}
    headers: dict[str, dict[str, str]] = {
        "modelspec": {"modelspec.architecture": "toy-1/lora"},
        "kohya": {"ss_base_model_version": "toy_v1"},
        "civitai": {},
        "nameless": {},
    }
    for name, metadata in headers.items():
        model(tmp_path / f"{name}.safetensors", keys, metadata=metadata)
        assert inspect(tmp_path / f"{name}.safetensors").family is None, "no family here is called so"
    (tmp_path / "civitai.civitai.info").write_text(json.dumps({"baseModel": "Toy Model 1"}), encoding="utf-8")
    program = f"from registry.detect.inspect import inspect; print([inspect(f'{{name}}.safetensors').family for name in {list(headers)}])"
    child = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == "['toy', 'toy', 'toy', None]"


@pytest.mark.slow
def test_a_toy_family_in_one_file_trains_merges_and_draws(tree: Path, tmp_path: Path) -> None:
    import numpy
    from PIL import Image

    work = tmp_path / "work"
    work.mkdir()
    write = "from pathlib import Path; from registry.families.toy import write_model; write_model(Path('toy'))"
    subprocess.run([sys.executable, "-c", write], cwd=work, env=os.environ | {"PYTHONPATH": str(tree)}, check=True, capture_output=True)
    tiny_dataset(work / "data", 4)

    seen = json.loads(_shown(tree, work))
    assert (seen["family"], seen["kind"], seen["prediction"]["value"]) == ("toy", "checkpoint", "flow")

    run = Path(
        loraloom(tree, work, "train", "name=discs", f"base={work / 'toy'}", "data.path=data", "steps=40", "batch_size=2", "resolution=32")
    )
    result = json.loads((run / "result.json").read_text())
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in json.loads(line)]
    assert sum(losses[-10:]) < sum(losses[:10]), "it learns"

    loraloom(tree, work, "lora", "fuse", "toy", "--adapter", "discs", "--output", "fused")
    loraloom(tree, work, "merge", "method=weighted_sum", "sources=[toy,fused]", "params.alpha=0.5", "output=half")
    assert "half: the same bytes" in loraloom(tree, work, "merge", "reproduce", "half")
    loraloom(tree, work, "lora", "extract", "fused", "toy", "--rank", "4", "--dtype", "fp32", "--output", "back.safetensors")

    grid = Path(
        loraloom(
            tree, work, "grid", f"base={work / 'toy'}", "prompt=a red disc", "negative=", "axes.adapter=[none,discs]", "axes.seed=[1,2]"
        )
    )
    cells = [json.loads(line) for line in (grid / "cells.jsonl").read_text().splitlines()]
    assert result["adapter"] and len(cells) == 4 and {cell["status"] for cell in cells} == {"rendered"}
    images = [numpy.asarray(Image.open(grid / cell["image"])) for cell in cells]
    assert all(image.shape == (32, 32, 3) for image in images)
    assert len({image.tobytes() for image in images}) == 4, "seed and adapter show"


def _shown(tree: Path, work: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(tree), "LORALOOM_HOME": str(work / "home")}
    command = [sys.executable, "-m", "loraloom", "registry", "show", str(work / "toy"), "--json"]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=True).stdout
