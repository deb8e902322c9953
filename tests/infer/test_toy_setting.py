"""A setting of an image is one field and the place where it acts: a toy, added to a copy of the tree, works everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("registry", "infer", "train", "loraloom", "conf")

FIELD = """\
    sharpness: Annotated[
        float | None,
        Setting(
            help="unsharp mask over the image, 0 to 2",
            infotext="Sharpness",
            valid=lambda value: 0 <= value <= 2,
            expected="0 to 2",
            in_latents=lambda _: False,
            axis=FieldAxis(help="sharpness: 0, 0.5, 1"),
        ),
    ] = None
"""
ACTS = """\
        if render.sharpness:
            from PIL.ImageFilter import UnsharpMask

            image = image.filter(UnsharpMask(percent=int(100 * render.sharpness)))
"""
AXIS = """

@axis("aspect", help="width over height", read=numbers)
def aspect(render: Render, value: float) -> Render:
    return replace(render, width=int((render.height or 32) * value))
"""

# file -> (the text that the insertion comes before, the insertion); None: the end of the file
SETTING_EDITS = {
    "infer/draw/render.py": ("    # filled in by the resolver\n", FIELD),
    "infer/draw/session.py": ("        return pasted(image, render", ACTS),
}
AXIS_EDITS = {"infer/grid/axes.py": (None, AXIS)}

SCRIPT = """
import contextlib, io, json, sys
from loraloom.cli import main
base, answers = sys.argv[1], {}

def call(name, *words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    answers[name] = {"code": code, "out": out.getvalue().strip(), "err": err.getvalue()}

grid = ("grid", f"base={base}", "prompt=a cat", "steps=2", "size=32")
call("plain", *grid)
call("axis", *grid, "axes.sharpness=[0,2]")
call("setting", *grid, "sharpness=2")
folder = answers["axis"]["out"].splitlines()[-1]
call("reproduce", "reproduce", f"{folder}/images/sharpness-2.png", "--json")
call("typo", "grid", "prompt=x", "sharpnes=1")
call("axis typo", "grid", "prompt=x", "axes.sharpnes=[1]")
call("range", *grid, "sharpness=9")
call("help", "grid", "--help")
call("aspect", *grid, "axes.aspect=[1,2]", "dry_run=true", "--json")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the command line of the edited copy answers: exit code, stdout and stderr of each call."""
    tree, work = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("work")
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", tree)  # marks a checkout
    for name, (anchor, text) in {**SETTING_EDITS, **AXIS_EDITS}.items():
        source = (tree / name).read_text(encoding="utf-8")
        assert anchor is None or source.count(anchor) == 1
        (tree / name).write_text(source + text if anchor is None else source.replace(anchor, text + anchor), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tree), "LORALOOM_HOME": str(work / "home"), "COLUMNS": "140"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(models / "base")]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _folder(answer: dict[str, Any]) -> Path:
    assert answer["code"] == 0, answer["err"]
    return Path(answer["out"].splitlines()[-1])


def _cells(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_folder(answer) / "cells.jsonl").read_text(encoding="utf-8").splitlines()]


def _forwards(answer: dict[str, Any]) -> int:
    return int(json.loads((_folder(answer) / "result.json").read_text(encoding="utf-8"))["forwards"])


def test_a_setting_is_two_edited_files_and_an_axis_is_one() -> None:
    assert len(SETTING_EDITS) == 2 and len(AXIS_EDITS) == 1


def test_it_is_an_axis_that_shows_in_the_pixels_and_in_the_key(answers: dict[str, dict[str, Any]]) -> None:
    folder, (soft, sharp) = _folder(answers["axis"]), _cells(answers["axis"])
    assert [one["axes"]["sharpness"] for one in (soft, sharp)] == [0.0, 2.0] and soft["key"] != sharp["key"]
    first, second = (numpy.asarray(Image.open(folder / one["image"])) for one in (soft, sharp))
    assert not numpy.array_equal(first, second)
    assert _forwards(answers["axis"]) == 0 < _forwards(answers["plain"])  # in_latents=False: one denoising serves all three


def test_it_is_a_setting_of_the_same_cell(answers: dict[str, dict[str, Any]]) -> None:
    (cell,) = _cells(answers["setting"])
    assert cell["key"] == _cells(answers["axis"])[1]["key"] and cell["status"] == "reused"


def test_cells_without_it_keep_their_key(answers: dict[str, dict[str, Any]]) -> None:
    from infer.draw.render import Render

    (cell,) = _cells(answers["plain"])
    assert cell["render"]["sharpness"] is None
    assert Render.from_json(cell["render"]).key() == cell["key"]  # this tree knows no sharpness


def test_it_is_in_the_report_and_in_parameters(answers: dict[str, dict[str, Any]]) -> None:
    folder = _folder(answers["axis"])
    with Image.open(folder / "images" / "sharpness-2.png") as image:
        texts: dict[str, str] = image.text  # type: ignore[attr-defined]
    assert "Sharpness: 2, Version: " in texts["parameters"] and json.loads(texts["loraloom"])["render"]["sharpness"] == 2.0
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', (folder / "report.html").read_text(encoding="utf-8"))
    assert found is not None
    data = json.loads(found[1])
    texts_of = [[data["texts"][number] for number in cell["settings"]] for cell in data["cells"]]
    assert [one[one.index("sharpness") + 1] for one in texts_of] == ["0", "2"]


def test_reproduce_draws_with_it(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["reproduce"]["code"] == 0, answers["reproduce"]
    assert json.loads(answers["reproduce"]["out"])["equal"] is True


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("typo", "Did you mean 'sharpness'?"),
        ("axis typo", "Did you mean 'axes.sharpness'?"),
        ("range", "sharpness is 9.0. Expected 0 to 2."),
    ],
)
def test_mistakes_are_refused(answers: dict[str, dict[str, Any]], call: str, sentence: str) -> None:
    assert answers[call]["code"] == 2 and sentence in answers[call]["err"]


def test_help_lists_setting_and_axis(answers: dict[str, dict[str, Any]]) -> None:
    assert "unsharp mask over the image, 0 to 2" in answers["help"]["out"] and "sharpness: 0, 0.5, 1" in answers["help"]["out"]


def test_an_axis_that_does_more_is_one_function(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["aspect"]["code"] == 0, answers["aspect"]["err"]
    assert json.loads(answers["aspect"]["out"])["axes"] == {"aspect": ["1.0", "2.0"]}
