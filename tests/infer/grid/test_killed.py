"""The folder of a grid that was killed: its report is made whole, and the grid that goes on says where its images come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import infer.grid.run_folder
from infer.grid.config import Axes, GridConfig
from infer.grid.job import run
from infer.grid.run_folder import RunFolder
from infer.output.page.mended import being_drawn
from infer.output.page.read import read_page
from loraloom.cli import main
from registry.progress import Tick
from tests.infer.conftest import Shelf


class Killed(BaseException):
    """Ends a run where a kill would."""


def config(shelf: Shelf) -> GridConfig:
    return GridConfig(base="tiny", prompt="a cat", steps=1, axes=Axes(seed="1-5"), out=str(shelf.work))


@pytest.fixture
def killed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grid of five cells after a kill: its live files have two, its folder three images."""
    with monkeypatch.context() as patch:
        patch.setattr(infer.grid.run_folder, "EVERY", 0.0)
        patch.setattr(infer.grid.run_folder, "SHARE", 1e9)

        def stop(tick: Tick) -> None:
            if tick.stage == "cells" and tick.done == 2:
                patch.setattr(RunFolder, "_write_live", lambda _: None)
            if tick.stage == "cells" and tick.done == 3:
                raise Killed

        def finish(*_: Any) -> None:
            raise Killed

        patch.setattr(RunFolder, "finish", finish)
        with pytest.raises(Killed):
            run(config(shelf), shelf.store, report=stop)
    (folder,) = (shelf.work / "grid").iterdir()
    assert len(list((folder / "images").iterdir())) == 3 and len(list((folder / "live").iterdir())) == 1
    return folder


def page(folder: Path) -> dict[str, Any]:
    return read_page(folder / "report.html")[1]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


def test_the_report_of_a_killed_grid_is_made_whole(killed: Path, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    before = page(killed)
    assert before["live"] and [one["status"] for one in before["cells"]] == ["missing"] * 5
    assert main(["report", str(killed)]) == 0
    shown = capsys.readouterr()
    assert "3 of its 5 cells are there" in shown.err and shown.out.strip() == str(killed / "report.html")
    after, text = page(killed), (killed / "report.html").read_text(encoding="utf-8")
    assert [one["status"] for one in after["cells"]] == ["rendered"] * 3 + ["missing"] * 2 and not after["live"]
    assert [one["error"] for one in after["cells"]] == [None] * 3 + ["not drawn: the run was interrupted"] * 2
    assert all((killed / address).is_file() for address, *_ in after["images"])
    assert "5 cells · 3 drawn · 2 not drawn" in text and "'self'\">" not in text and not (killed / "live").exists()
    assert [one["status"] for one in lines(killed)] == ["rendered"] * 3 + ["missing"] * 2
    assert all((killed / one["image"]).is_file() for one in lines(killed)[:3])
    whole = run(config(shelf), shelf.store)
    assert (whole.result["rendered"], whole.result["reused"]) == (2, 3)
    assert whole.notes == (f"Images are taken over from {killed}, whose grid was killed.",)
    parameters = [one["parameters"] for one in page(whole.folder)["cells"]]
    assert parameters[:3] == [one["parameters"] for one in after["cells"][:3]]
    assert main(["report", str(killed), "--single-file"]) == 0


@pytest.mark.slow
def test_a_grid_that_goes_on_says_whose_images_it_has(killed: Path, shelf: Shelf) -> None:
    again = run(config(shelf), shelf.store)
    (note,) = again.notes
    assert f"`loraloom report {killed}`" in note
    assert run(config(shelf), shelf.store).notes == (note,)
    (killed / "cells.jsonl").write_text("nothing\n")
    assert run(config(shelf), shelf.store).notes == ()


def test_a_grid_that_is_being_drawn_is_left_alone(killed: Path, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    with being_drawn(killed):
        assert main(["report", str(killed)]) == 2 and "is being drawn" in capsys.readouterr().err
        assert run(config(shelf), shelf.store).notes == ()
    assert page(killed)["live"] and not (killed / ".drawing.lock").exists()
