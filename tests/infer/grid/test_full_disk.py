"""A grid on a full disk: an error with the path at the first image that it does not take; what was drawn is found again."""

from pathlib import Path
from typing import Any

import pytest

from infer.draw.session import Session
from infer.grid.config import Axes, GridConfig
from infer.grid.job import run
from registry.errors import JobFailed
from tests.disks import full_disk
from tests.infer.conftest import Shelf

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


@pytest.mark.parametrize(("free_kib", "drawn"), [(0, 0), (112, 2)])  # 112 KiB: the report of what is to come, no more
def test_a_full_run_folder(free_kib: int, drawn: int, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 2, "axes": Axes(seed="1-2")}
    (tmp_path / "disk").mkdir()
    refused = pytest.raises(JobFailed, match=r"disk/grid/.* cannot be written: the disk is full\. It needs [\d,]+ bytes")
    with full_disk(tmp_path / "disk", monkeypatch, free_kib=free_kib) as disk, refused:
        run(GridConfig(out=str(disk), **settings), shelf.store)
    monkeypatch.undo()
    monkeypatch.setenv("LORALOOM_HOME", str(shelf.home))
    again = run(GridConfig(out=str(shelf.work), **settings), shelf.store)
    assert again.result["reused"] == drawn and again.result["rendered"] == 2 - drawn


def test_a_full_home_ends_the_grid_at_the_first_image(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = Session.draw

    def counted(session: Session, index: int) -> tuple[bytes, int]:
        drawn.append(index)
        return draw(session, index)

    monkeypatch.setattr(Session, "draw", counted)
    settings: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 2, "axes": Axes(seed="1-4")}
    refused = pytest.raises(JobFailed, match=r"home/cells/.* cannot be written: the disk is full\. It needs [\d,]+ bytes")
    with full_disk(shelf.home / "cells", monkeypatch), refused:
        run(GridConfig(out=str(shelf.work), **settings), shelf.store)
    assert len(drawn) == 1
