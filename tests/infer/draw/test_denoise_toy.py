"""The promise of the seam: a family is one file. A toy, dropped into a copy of the tree, trains, merges and draws with no other edit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
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


COMMANDS = """
import contextlib, io, json, sys
from pathlib import Path

from loraloom.cli import main
from registry.families.toy import write_model

write_model(Path("toy"))
answers = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        code = main(words)
    if code != 0:
        sys.exit(f"{words}: {code}")
    answers.append(shown.getvalue().strip())
print(json.dumps(answers))
"""


def loraloom(tree: Path, work: Path, *commands: Sequence[str]) -> list[str]:
    """What the commands print, run one after the other by one process of the copy, which has the toy's model beside it."""
    environment = os.environ | {"PYTHONPATH": str(tree), "LORALOOM_HOME": str(work / "home")}
    given = json.dumps(commands)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=work, env=environment, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown: list[str] = json.loads(done.stdout.splitlines()[-1])
    return shown


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
    tiny_dataset(work / "data", 4)
    toy = f"base={work / 'toy'}"
    answers = loraloom(
        tree,
        work,
        ["registry", "show", str(work / "toy"), "--json"],
        ["train", "name=discs", toy, "data.path=data", "steps=40", "batch_size=2", "resolution=32"],
        ["lora", "fuse", "toy", "--adapter", "discs", "--output", "fused"],
        ["merge", "method=weighted_sum", "sources=[toy,fused]", "params.alpha=0.5", "output=half"],
        ["merge", "reproduce", "half"],
        ["lora", "extract", "fused", "toy", "--rank", "4", "--dtype", "fp32", "--output", "back.safetensors"],
        ["grid", toy, "prompt=a red disc", "negative=", "axes.adapter=[none,discs]", "axes.seed=[1,2]"],
    )
    seen, run, grid = json.loads(answers[0]), Path(answers[1].splitlines()[-1]), Path(answers[-1].splitlines()[-1])
    assert (seen["family"], seen["kind"], seen["prediction"]["value"]) == ("toy", "checkpoint", "flow")
    assert "half: the same bytes" in answers[4].splitlines()[-1]

    result = json.loads((run / "result.json").read_text())
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in json.loads(line)]
    assert sum(losses[-10:]) < sum(losses[:10]), "it learns"

    cells = [json.loads(line) for line in (grid / "cells.jsonl").read_text().splitlines()]
    assert result["adapter"] and len(cells) == 4 and {cell["status"] for cell in cells} == {"rendered"}
    images = [numpy.asarray(Image.open(grid / cell["image"])) for cell in cells]
    assert all(image.shape == (32, 32, 3) for image in images)
    assert len({image.tobytes() for image in images}) == 4, "seed and adapter show"
