"""Several machines and one index: the Studio of each shows the runs of all."""

import shutil
from pathlib import Path

import pytest

from registry.store import Store
from tests.loraloom.studio.opened import serving
from tests.registry.conftest import database as database


@pytest.mark.parametrize("database", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_runs_of_a_second_machine_are_shown(tmp_path: Path, database: str) -> None:
    there = tmp_path / "second" / "runs" / "cap" / "20251212-101010"
    there.mkdir(parents=True)
    second = Store(tmp_path / "second" / "home")
    second.add_run(there, name="cap", parents=[{"role": "base", "ref": "sdxl", "sha256": "ab" * 32}], recipe={"steps": 700})
    second.close()
    shutil.rmtree(tmp_path / "second")  # on this machine there is no such folder, nor that home
    (tmp_path / "work").mkdir()
    with serving(tmp_path / "work", home=tmp_path / "home") as served:
        rows = served.get("runs/list")[1]["rows"]
        assert [(row["name"], row["state"], row["summary"]["base"]) for row in rows] == [("cap", "elsewhere", "sdxl")]
        assert [card["name"] for card in served.post("models/list", kind="run")[1]["cards"]] == ["cap"]
