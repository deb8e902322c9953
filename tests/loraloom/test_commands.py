"""The commands hand on what was typed, and give the exit code of what came of it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infer.grid.config import GridConfig, axis_settings
from loraloom.cli import main
from train.config import TrainConfig


@dataclass
class Seen:
    """What a job was called with, and what it answers."""

    calls: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path("/runs/x")
    notes: tuple[str, ...] = ()

    def __call__(self, config: Any, store: Any, **others: Any) -> "Seen":
        self.calls.append((config, others))
        return self

    def to_text(self) -> str:
        return "the plan"

    def to_json(self) -> Any:
        return {"plan": True}


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen(result={"cells": 2, "rendered": 2, "reused": 0, "failed": 0, "seconds": 0.1, "report": "/runs/x/report.html"})
    monkeypatch.setattr("infer.grid.job.run", seen)
    monkeypatch.setattr("infer.grid.job.plan", seen)
    return seen


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    monkeypatch.setattr("train.run.run", seen)
    monkeypatch.setattr("train.run.plan", seen)
    return seen


def test_a_prompt_reaches_a_grid_as_typed(grid: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prompt=a cat, in (a red) hat!", 'axes.prompt=["a cat, sitting","a dog!"]', "axes.adapter=[none,ink:0.6+hat:0.4]"]
    assert main(["grid", *words, "adapters=my adapter (v2):0.5", "where=weight > 0 or adapter == 'none'"]) == 0
    config: GridConfig = grid.calls[0][0]
    assert config.prompt == "a cat, in (a red) hat!"
    assert axis_settings(config) == {"prompt": ["a cat, sitting", "a dog!"], "adapter": ["none", "ink:0.6+hat:0.4"]}
    assert config.adapters == "my adapter (v2):0.5"
    assert config.where == "weight > 0 or adapter == 'none'"
    assert capsys.readouterr().out == "/runs/x\n"


@pytest.mark.parametrize("size", ["64", "96x64", "[96,64]"])
def test_a_size_has_three_spellings(grid: Seen, size: str) -> None:
    assert main(["grid", "prompt=x", f"size={size}"]) == 0
    assert grid.calls[0][0].size == {"64": 64, "96x64": "96x64", "[96,64]": [96, 64]}[size]


def test_a_grid_with_failed_cells_has_exit_code_1_and_still_tells_its_folder(grid: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    grid.result["failed"] = 1
    assert main(["grid", "prompt=x"]) == 1
    reported = capsys.readouterr()
    assert reported.out == "/runs/x\n"
    assert "error: 1 cell could not be drawn" in reported.err


def test_a_dry_run_of_a_grid(grid: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid", "prompt=x", "dry_run=true", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"plan": True}


def test_paths_and_triggers_reach_a_training_as_typed(train: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data.path=/my images/hat (2024), ü", "data.trigger=ohwx, [V]", "name=2024_01", "lora.targets=[to_q,to_v]"]) == 0
    config: TrainConfig = train.calls[0][0]
    assert (config.data.path, config.data.trigger, config.name) == ("/my images/hat (2024), ü", "ohwx, [V]", "2024_01")
    assert config.lora.targets == ["to_q", "to_v"]
    assert capsys.readouterr().out == "/runs/x\n"


def test_sets_reach_a_training_as_typed(train: Seen) -> None:
    as_json = '[{"path":"a b","repeats":3,"trigger":"sks"},{"path":"it\'s","prior":true}]'
    for typed in ("[{path: a b, repeats: 3, trigger: sks}, {path: it's, prior: true}]", as_json):
        assert main(["train", f"data.sets={typed}"]) == 0
        entries = [dict(entry) for entry in train.calls[-1][0].data.sets]
        assert entries == [{"path": "a b", "repeats": 3, "trigger": "sks"}, {"path": "it's", "prior": True}]


def test_a_resume_is_reported_what_was_given_beside_it_and_nothing_else(train: Seen) -> None:
    assert main(["train", "resume=runs/hat/1", "steps=20", "optim.lr=1e-5"]) == 0
    assert train.calls[0][1]["given"] == {"resume": "runs/hat/1", "steps": 20, "optim.lr": 1e-5}


@pytest.mark.parametrize("equal", [True, False])
def test_a_reproduction_that_differs_has_exit_code_1(
    equal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Seen()
    made.reproduced = equal  # type: ignore[attr-defined]  # of Reproduction, what the command reads
    monkeypatch.setattr("infer.output.reproduce.reproduce", made)
    assert main(["reproduce", "a.png", "--json"]) == (0 if equal else 1)
    assert made.calls[0][0] == Path.cwd() / "a.png"
    assert json.loads(capsys.readouterr().out) == {"plan": True}


def test_a_hint_is_written_and_all_faults_of_one_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    image.paste((0, 0, 0), (10, 5, 30, 15))
    image.save(tmp_path / "p.png")
    output = tmp_path / "hint.png"
    words = ["hint", str(tmp_path / "p.png"), "--output", str(output), "--json", "--prepare"]
    assert main([*words, "scribble", "--option", "thickness=80", "--size", "20x10"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert Image.open(output).size == (20, 10) == tuple(reported["size"]) and 0 < reported["white"] < 1
    assert reported["options"]["thickness"] == 80.0 and reported["output"] == str(output)
    output.unlink()
    assert main([*words, "edges", "--option", "lwo=3", "--size", "20x20"]) == 2
    message = capsys.readouterr().err
    assert "Did you mean 'low'?" in message and "another shape" in message and not output.exists()
    assert main([*words, "edgse"]) == 2
    assert "Did you mean 'edges'?" in capsys.readouterr().err
    before = (tmp_path / "p.png").read_bytes()
    assert main(["hint", str(tmp_path / "p.png"), "--prepare", "edges", "--output", str(tmp_path / "p.png")]) == 2
    assert "is the image itself" in capsys.readouterr().err and (tmp_path / "p.png").read_bytes() == before


def test_the_demo_is_reported_where(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Path] = []

    def demo(out: Path) -> int:
        reported.append(out)
        return 0

    monkeypatch.setattr("loraloom.demo.main", demo)
    assert main(["demo", "--out", "here"]) == 0
    assert main(["demo"]) == 0
    assert reported == [Path("here"), Path("demo")]
