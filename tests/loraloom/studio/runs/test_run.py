"""A run's page: its values, its curves as they grow, runs side by side, its report, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from loraloom.studio.runs.curves import run_charts
from loraloom.studio.runs.routes import watched_run
from registry.formats.atomic_file import write_json
from registry.store import Store
from tests.loraloom.studio.opened import Served
from tests.loraloom.studio.runs.made import PROMPTS, add_rows, make_run
from tests.registry.made import lora, sd1_attention
from train.loop.trackers import METRICS


def test_a_run_has_its_plan_settings_previews_and_files(served: Served) -> None:
    folder = make_run(served.studio.folder, lora__rank=4)
    status, run = served.get("runs/run", path=folder)
    assert status == 200 and run["plan"].startswith("run        ink") and ["lora.rank", "4"] in run["settings"]
    assert run["previews"]["steps"] == [0, 20, 40] and [row["prompt"] for row in run["previews"]["prompts"]] == PROMPTS
    image = run["previews"]["prompts"][0]["images"]["40"]
    assert served.raw("GET", f"/{served.token}/api/image?path={image['path']}&side=384&v={image['v']}")[0] == 200
    assert {"name": "samples", "bytes": run["files"][-1]["bytes"], "files": 6} in run["files"] and run["sentences"] == ["done"]


def test_a_finished_run_leads_to_its_adapter(served: Served) -> None:
    """By its name, which another run's may have since: the registry calls the one before by its time then."""
    folder = make_run(served.studio.folder)
    file = folder / "ink.safetensors"
    lora(file, sd1_attention(128, channels=48, blocks=(0,)), rank=2)
    write_json(folder / "result.json", {"adapter": "ink", "files": {"diffusers": str(file)}})
    assert served.get("runs/run", path=folder)[1]["adapter"] is None  # not registered
    store = Store(served.studio.home)
    record = store.add(str(file), name="ink")
    store.add_run(folder, name="ink", parents=[], recipe={})
    assert served.get("runs/run", path=folder)[1]["adapter"] == {"id": record.id, "reference": "ink"}
    lora(other := folder / "other.safetensors", sd1_attention(128, channels=48, blocks=(0,)), rank=4)
    store.add(str(other), name="ink")
    found = served.get("runs/run", path=folder)[1]["adapter"]
    assert found["id"] == record.id and store.find(found["reference"], kind="adapter").id == record.id


def test_curves_grow_with_what_is_added(tmp_path: Path) -> None:
    folder = make_run(tmp_path, done=20, finished=False)
    charts = {chart.key: chart for chart in run_charts(folder)}
    assert list(charts) == ["training_loss", "heldout_loss", "heldout_bands", "gradient_norm", "learning_rate"]
    assert charts["training_loss"].lines[0].points[-1][0] == 20 and charts["heldout_loss"].lines[0].points[-1][2] is not None
    with (folder / METRICS).open("ab") as file:
        file.write(b'{"step": 21, "lo')  # a row that is being written
    assert run_charts(folder)[0].lines[0].points[-1][0] == 20
    with (folder / METRICS).open("ab") as file:
        file.write(b'ss": 0.5, "lr": 0.1}\n')
    add_rows(folder, 22, 40)
    assert run_charts(folder)[0].lines[0].points[-1][0] == 40
    make_run(tmp_path / "other", done=10, finished=False)
    (tmp_path / "other/runs/ink/20260101-120000" / METRICS).replace(folder / METRICS)  # as a resume writes it anew
    assert run_charts(folder)[0].lines[0].points[-1][0] == 10


def test_a_damaged_line_of_metrics_is_named(served: Served) -> None:
    folder = make_run(served.studio.folder, done=20, finished=False)
    with (folder / METRICS).open("ab") as file:
        file.write(b"nonsense\n")
    status, found = served.get("runs/curves", path=folder)
    lines = (folder / METRICS).read_bytes().count(b"\n")
    assert status == 400 and f"line {lines} is damaged" in found["error"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "plan.json", "result.json"])
def test_a_named_pipe_in_a_run_is_not_waited_for(served: Served, name: str) -> None:
    folder = make_run(served.studio.folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert served.get("runs/list")[0] == 200
    for route in ("run", "curves", "files"):
        status, value = served.get(f"runs/{route}", path=folder)
        assert status == 400 and f"{name}: is no regular file" in value["error"]


def test_what_a_page_watches_changes_with_the_run(served: Served) -> None:
    folder = make_run(served.studio.folder, done=20, finished=False)
    before = json.dumps(watched_run(served.studio, str(folder)))
    assert json.dumps(watched_run(served.studio, str(folder))) == before and json.loads(before)["state"] == "stopped"
    add_rows(folder, 21, 22)
    assert json.dumps(watched_run(served.studio, str(folder))) != before


def test_runs_side_by_side_have_common_charts_and_the_settings_that_differ(served: Served) -> None:
    root = served.studio.folder
    one, other = make_run(root, "a", lora__rank=4), make_run(root, "b", lora__rank=8, optim__lr=2e-4)
    status, found = served.post("runs/compare", paths=[str(one), str(other)])
    assert status == 200 and [chart["key"] for chart in found["charts"]][:2] == ["training_loss", "heldout_loss"]
    assert [line["name"] for line in found["charts"][0]["lines"]] == ["a", "b"]
    differ = {row["name"]: row["values"] for row in found["settings"]}
    assert differ == {"name": ["a", "b"], "lora.rank": ["4", "8"], "optim.lr": ["0.0001", "0.0002"]}
    assert served.post("runs/compare", paths=[str(one)])[0] == 400 and served.post("runs/compare", paths=[str(one)] * 2)[0] == 400


def test_a_sweep_has_its_runs_with_the_best(served: Served) -> None:
    folder = served.studio.folder / "runs" / "sweeps" / "train-20260102-030405"
    rows = [
        {"number": n, "overrides": [f"lora.rank={rank}"], "settings": {"lora.rank": rank, "seed": 1}, "folder": None}
        | {"reference": None, "value": value, "exit_code": 0, "error": None}
        for n, rank, value in ((0, 4, 0.8), (1, 8, 0.7))
    ]
    (folder / "runs").mkdir(parents=True)
    write_json(folder / "runs" / "0000.json", rows[0])
    assert served.get("runs/sweep", path=folder)[1]["runs"][0]["value"] == 0.8  # it goes on
    write_json(folder / "result.json", {"job": "train", "runs": rows, "best": {"number": 1}, "summary": ["a line"]})
    found = served.get("runs/sweep", path=folder)[1]
    assert found["best"] == 1 and found["settings"] == ["lora.rank"] and found["ended"] and found["summary"] == ["a line"]
    assert served.get("runs/sweeps")[1] == {"rows": [{"path": str(folder), "name": folder.name, "ended": True, "runs": 1}], "total": 1}


def test_a_report_reaches_neither_the_studio_nor_another_site(served: Served) -> None:
    folder = make_run(served.studio.folder)
    (folder / "report.html").write_text("<script>fetch('/')</script>")
    status, headers, body = served.raw("GET", f"/{served.token}/api/runs/report?path={folder}")
    assert status == 200 and body == b"<script>fetch('/')</script>"
    assert headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none'; img-src data:;")


def test_what_is_no_run_is_refused(served: Served, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = make_run(tmp_path_factory.mktemp("outside"))
    assert served.get("runs/run", path=outside)[0] == 400 and served.get("runs/curves", path=outside)[0] == 400
    assert served.get("runs/run", path=served.studio.folder)[0] == 400
    assert served.get("runs/run", path=served.studio.folder / "none")[0] == 404
    (make_run(served.studio.folder) / "report.html").symlink_to(outside / "config.yaml")
    assert served.get("runs/report", path=served.studio.folder / "runs/ink/20260101-120000")[0] == 400
