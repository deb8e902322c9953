"""`loraloom control`: which run is meant, what is refused, what is written."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from loraloom.cli import main
from train.config import PreviewConfig, TrainConfig, to_yaml
from train.output.folder import held


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """./runs with two runs of hat, one of cat, and a grid that is newer."""
    monkeypatch.chdir(tmp_path)
    for name in ("hat/20260101-000000", "hat/20260102-000000", "cat/20260103-000000"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        prompts = ["a cat"] if name.startswith("cat") else []
        (folder / "config.yaml").write_text(to_yaml(TrainConfig(preview=PreviewConfig(prompts=prompts))), encoding="utf-8")
        (folder / "inputs.json").write_text("{}")
    (tmp_path / "runs" / "grid" / "20260104-000000").mkdir(parents=True)
    (tmp_path / "runs" / "grid" / "20260104-000000" / "config.yaml").write_text("prompt: a\n")
    return tmp_path / "runs"


def asked(runs: Path) -> list[str]:
    return sorted(path.relative_to(runs).as_posix() for path in runs.glob("*/*/requests/*"))


def test_the_run_that_trains_is_found_by_name_and_as_latest(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with held(runs / "hat" / "20260101-000000"):
        assert main(["control", "hat", "save"]) == 0
        assert main(["control", "latest", "stop", "--json"]) == 0
    assert asked(runs) == ["hat/20260101-000000/requests/save", "hat/20260101-000000/requests/stop"]
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :]) == {"folder": str(runs / "hat" / "20260101-000000"), "asked": "stop"}
    with held(runs / "cat" / "20260103-000000"):
        assert main(["control", "runs/cat/20260103-000000", "sample"]) == 0
    assert "cat/20260103-000000/requests/sample" in asked(runs)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["hat", "save"], "2 runs named 'hat' train now"),
        (["runs/hat/20260101-000000", "sample"], "has no previews to draw"),
        (["runs/cat/20260103-000000", "save"], "No process trains in"),
        (["cat", "save"], "No run named 'cat' trains in"),
        (["runs/grid", "save"], "is not a run folder"),
        (["runs/nothing", "save"], "error: runs/nothing: there is no such folder"),
        (["", "save"], "RUN is an empty text"),
        (["hat", "sve"], "Did you mean 'save'"),
    ],
)
def test_what_is_refused(words: list[str], answer: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        for name in ("20260101-000000", "20260102-000000"):
            stack.enter_context(held(runs / "hat" / name))
        assert main(["control", *words]) == 2
    assert answer in capsys.readouterr().err and asked(runs) == []
