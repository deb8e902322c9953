"""The list: run folders, runs of the index and jobs, filtered, paged, the newest first, with their states."""

import json
from pathlib import Path

import pytest

from loraloom.queue.queue import Queue
from loraloom.studio.runs import registered
from loraloom.studio.runs.registered import forget
from loraloom.studio.runs.routes import watched_list
from registry.home import index_place
from registry.store import Store
from tests.infer.output.opened import NASTY
from tests.loraloom.studio.opened import Served
from tests.loraloom.studio.runs.made import make_run
from train.output.folder import held


def names(served: Served, **values: object) -> list[tuple[str, str]]:
    status, found = served.get("runs/list", **values)
    assert status == 200, found
    return [(row["name"], row["state"]) for row in found["rows"]]


def test_runs_are_listed_newest_first_with_their_states(served: Served) -> None:
    root = served.studio.folder
    make_run(root, "hat", "20260101-120000")
    stopped = make_run(root, "ink", "20260301-120000", done=20, finished=False)
    running = make_run(root, "ink", "20260301-120000-2", done=20, finished=False)
    (root / "runs" / "ink" / "notes").mkdir()  # no run
    with held(running):
        assert names(served) == [("ink", "running"), ("ink", "stopped"), ("hat", "finished")]
        assert names(served, state="running") == [("ink", "running")]
    row = served.get("runs/list", state="stopped")[1]["rows"]
    assert {one["path"] for one in row} == {str(running), str(stopped)}
    assert row[0]["summary"]["step"] == 20 and row[0]["summary"]["steps"] == 40 and row[0]["summary"]["heldout_best"] == 0.8


def test_the_list_is_filtered_by_text_and_paged(served: Served) -> None:
    for number in range(7):
        make_run(served.studio.folder, "ink" if number % 2 else "Hat", f"2026010{number + 1}-120000")
    assert len(names(served, text="hat")) == 4 and names(served, text="hat ink") == []
    status, found = served.get("runs/list", offset=2, limit=3)
    assert status == 200 and found["total"] == 7 and [row["stamp"][:8] for row in found["rows"]] == ["20260105", "20260104", "20260103"]
    assert served.get("runs/list", limit=100_000)[0] == 400 and served.get("runs/list", state="broken")[0] == 400


def test_a_run_of_another_machine_has_what_the_index_has(served: Served) -> None:
    there = served.studio.home.parent / "another" / "runs" / "cap" / "20251212-101010"
    there.mkdir(parents=True)
    parents = [{"role": "base", "ref": "sdxl", "sha256": "ab" * 32}]
    Store(served.studio.home).add_run(there, name="cap", parents=parents, recipe={"steps": 700, "lora": {"kind": "lokr", "rank": 8}})
    there.rmdir()
    forget(served.studio)
    assert names(served) == [("cap", "elsewhere")]
    status, run = served.get("runs/run", path=there)
    assert status == 200 and run["state"] == "elsewhere" and ["lora.kind", "lokr"] in run["settings"] and run["parents"] == parents
    assert run["summary"]["base"] == "sdxl" and run["summary"]["steps"] == 700
    status, again = served.get("new_run/from", path=there)
    assert status == 200 and dict(again["words"]) == {"steps": "700", "lora.kind": "lokr", "lora.rank": "8"}
    assert served.get("models/one", id=run["id"])[1]["record"]["name"] == "cap"


def test_a_damaged_index_leaves_the_runs_that_lie_in_folders(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(served.studio.folder)
    Store(served.studio.home).add_run(folder, name="ink", parents=[], recipe={})
    place = index_place(served.studio.home)
    assert isinstance(place, Path)
    for file in place.parent.glob(f"{place.name}*"):
        file.write_bytes(b"no index" * 1000) if file == place else file.unlink()
    forget(served.studio)
    status, found = served.get("runs/list")
    assert status == 200 and [row["path"] for row in found["rows"]] == [str(folder)]
    assert f"The index {place} is damaged" in found["index"] and "loraloom registry rebuild" in found["index"]
    assert served.get("runs/run", path=folder)[0] == 200
    status, gone = served.get("runs/run", path=folder.with_name("20250101-000000"))
    assert status == 404 and "there is no such run folder" in gone["error"] and "registry rebuild" in gone["error"]
    before = watched_list(served.studio, "")
    place.unlink()
    monkeypatch.setattr(registered, "SECONDS", 0.0)
    assert watched_list(served.studio, "") != before and served.get("runs/list")[1]["index"] is None


def test_jobs_that_run_and_wait_are_first_and_ended_ones_are_among_the_runs(served: Served) -> None:
    queue = Queue(served.studio.home)
    queue.pause()
    first = queue.add(["train", "data.path=a", f"data.trigger={NASTY}"], folder=served.studio.folder)
    second = queue.add(["registry", "list"], folder=served.studio.folder)
    status, found = served.get("runs/list")
    assert status == 200 and [job["id"] for job in found["active"]] == [first.id, second.id] and found["paused"]
    assert served.get("runs/list", state="finished")[1]["active"] == []
    assert [job["id"] for job in served.get("runs/list", text="registry")[1]["active"]] == [second.id]
    assert served.get("runs/job", id=second.id)[1]["words"] == ["registry", "list"]


def test_a_grid_that_a_job_has_drawn_is_no_run(served: Served) -> None:
    grid = served.studio.folder / "runs" / "grid" / "20260101-120000"
    grid.mkdir(parents=True)
    for name in ("config.yaml", "plan.json", "cells.jsonl"):
        (grid / name).write_text("{}")
    run = make_run(served.studio.folder)
    queue = Queue(served.studio.home)
    queue.pause()
    for words, made in ((["grid", "prompt=a"], grid), (["train", "data.path=a"], run)):
        job = queue.add(words, folder=served.studio.folder)
        with (queue.folder / job.id / "made.jsonl").open("a") as file:
            file.write(json.dumps(str(made)) + "\n")
    rows = served.get("runs/list")[1]["rows"]
    assert [row["path"] for row in rows if row["path"]] == [str(run)]


def test_a_damaged_result_is_named_in_its_row(served: Served) -> None:
    folder = make_run(served.studio.folder)
    (folder / "result.json").write_text("{")
    row = served.get("runs/list")[1]["rows"][0]
    assert row["state"] == "finished" and row["summary"]["damaged"].startswith("result.json cannot be read")
