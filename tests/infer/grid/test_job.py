"""The grid as it runs: what is drawn, what is not drawn again, what survives, and what the run folder says."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import infer.grid.job
import infer.grid.run_folder
import infer.output.report
from infer.draw.render import Render
from infer.grid.cells import CellStore
from infer.grid.config import Axes, GridConfig
from infer.grid.engine import render_cells
from infer.grid.job import plan, run
from infer.output.png import hash_pixels, read_png
from registry.errors import Faults, JobFailed
from registry.progress import Tick
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.patience import until

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def config(shelf: Shelf, axes: dict[str, Any], **settings: Any) -> GridConfig:
    given = {"base": "tiny", "prompt": "a cat", "steps": 2, "guidance": 3.0, "out": str(shelf.work)}
    return GridConfig(axes=Axes(**axes), **{name: value for name, value in given.items() if name not in axes} | settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


def pixels(path: Path | str | None) -> str:
    assert path is not None
    with Image.open(path) as image:
        return hash_pixels(image.convert("RGB"))


@pytest.mark.slow
def test_the_same_grid_again_builds_no_model(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plan found out of the base is not asked again once `device=auto` is a device: torch and diffusers stay out."""
    asked = config(shelf, {"seed": [1, 2]}, steps=1)
    run(asked, shelf.store)

    def refuse(*_: Any) -> None:
        raise AssertionError("the skeleton is built")

    monkeypatch.setattr("infer.draw.resolve._skeleton", refuse)
    again = run(asked, Store(shelf.home))
    assert (again.result["reused"], again.result["failed"]) == (2, 0)


@pytest.mark.slow
def test_a_grid_and_the_same_grid_again(shelf: Shelf) -> None:
    asked = config(
        shelf, {"prompt": ["a cat", "a dog"], "adapter": ["none", "words:0.5", "words"], "sampler": [None, "heun"]}, name="first try"
    )
    planned = plan(asked, shelf.store)
    outcome = run(asked, shelf.store)
    result = outcome.result
    assert (result["cells"], result["rendered"], result["reused"], result["failed"]) == (12, 12, 0, 0)
    assert (result["forwards"], result["encodes"], result["model_loads"]) == (planned.forwards, planned.encodes, planned.model_loads)
    assert list(result) == [
        "cells",
        "rendered",
        "reused",
        "failed",
        "missing",
        "outside",
        "encodes",
        "forwards",
        "latents_reused",
        "model_loads",
        "seconds",
        "scores",
        "sheet",
        "report",
    ]
    assert json.loads((outcome.folder / "result.json").read_text()) == result
    assert outcome.folder.is_absolute() and outcome.folder.parent == shelf.work / "first try"
    assert all(Path(result[name]).is_absolute() and Path(result[name]).is_file() for name in ("sheet", "report"))
    assert "words:0.5" in (outcome.folder / "config.yaml").read_text()
    again = run(asked, shelf.store)
    assert (again.result["rendered"], again.result["reused"], again.result["forwards"], again.result["model_loads"]) == (0, 12, 0, 0)
    assert again.folder != outcome.folder
    for first, second in zip(lines(outcome.folder), lines(again.folder), strict=True):
        assert (outcome.folder / first["image"]).read_bytes() == (again.folder / second["image"]).read_bytes()
        assert set(first) >= {"key", "render", "image", "status", "seconds", "scores"}
        carried = read_png(again.folder / second["image"])
        assert carried.key == first["key"] and carried.render == Render.from_json(first["render"])
        assert carried.pixels_sha256 == pixels(again.folder / second["image"])


@pytest.mark.slow
def test_scores_of_a_grid_are_in_its_files_and_a_score_added_later_draws_nothing(shelf: Shelf) -> None:
    drawn = config(shelf, {"seed": [1, 2], "steps": [2, 3]}, score=["contrast", {"difference": {"axis": "steps", "name": "change"}}])
    first = run(drawn, shelf.store)
    rows = lines(first.folder)
    assert [row["scores"]["change"] for row in rows if row["axes"]["steps"] == 2] == [0.0, 0.0]
    assert all(row["scores"]["change"] > 0 for row in rows if row["axes"]["steps"] == 3)
    section = first.result["scores"]
    assert [one["name"] for one in section["definitions"]] == ["contrast", "change"] and (section["computed"], section["kept"]) == (8, 0)
    assert [(one["score"], one["axis"], one["pairs"], one["low"]) for one in section["differences"]] == [
        ("contrast", "steps", 2, None),
        ("change", "steps", 2, None),
    ]
    more = run(config(shelf, {"seed": [1, 2], "steps": [2, 3]}, score=["contrast", "saturation"]), shelf.store).result
    assert (more["rendered"], more["forwards"], more["scores"]["computed"], more["scores"]["kept"]) == (0, 0, 4, 4)


def test_every_score_that_cannot_be_computed_is_refused_before_anything_is_drawn(shelf: Shelf) -> None:
    asked = config(shelf, {"seed": [1, 2]}, score=["sharpnes", {"colour_distance": "nowhere"}, {"difference": {"axis": "steps"}}])
    with pytest.raises(Faults) as refused:
        run(asked, shelf.store)
    assert len(refused.value.faults) == 3 and "Did you mean 'sharpness'?" in str(refused.value)
    assert not any(shelf.work.glob("grid/*"))


@pytest.mark.slow
def test_a_value_more_draws_only_what_is_new(shelf: Shelf) -> None:
    run(config(shelf, {"seed": [1, 2]}), shelf.store)
    result = run(config(shelf, {"seed": [1, 2, 3], "steps": [2, 3]}), shelf.store).result
    assert (result["rendered"], result["reused"]) == (4, 2)


@pytest.mark.slow
def test_images_are_named_after_their_settings_and_keep_their_names_when_a_value_is_added(shelf: Shelf) -> None:
    few = run(config(shelf, {"seed": [3, 2], "adapter": ["none", "ink"]}), shelf.store).folder / "images"
    many = run(config(shelf, {"seed": "1-3", "adapter": ["hat", "none", "ink"]}), shelf.store).folder / "images"
    assert {path.name for path in few.iterdir()} == {f"adapter-{name}_seed-{seed}.png" for name in ("none", "ink") for seed in (2, 3)}
    assert len(list(many.iterdir())) == 9
    assert all((many / path.name).read_bytes() == path.read_bytes() for path in few.iterdir())


@pytest.mark.slow
def test_every_setting_changes_the_image(shelf: Shelf) -> None:
    changes: Sequence[dict[str, Any]] = [
        *(
            {},
            {"seed": 1},
            {"prompt": "a dog"},
            {"negative": "a tree"},
            {"steps": 3},
            {"sampler": "euler"},
            {"guidance": 5.0},
            {"clip_skip": 1},
        ),
        *({"adapters": name} for name in ("ink", "ink:0.5", "ink+hat", "words")),
        *({"size": "48x32"}, {"precision": "bf16"}),
    ]
    from infer.draw.values import Precision

    renders = []
    for change in changes:
        if "precision" in change:
            change = {"precision": Precision.bf16}
        renders += [one.render for one in plan(config(shelf, {}, **change), shelf.store).cells]
    results = render_cells(renders, shelf.store, CellStore())
    assert [one.error for one in results] == [None] * len(changes)
    assert len({pixels(one.path) for one in results}) == len(changes)


def test_equal_cells_are_drawn_once_and_each_carries_its_own_names(shelf: Shelf) -> None:
    outcome = run(config(shelf, {"adapter": ["none", "ink:0", "hat:0"]}), shelf.store)
    assert outcome.result["cells"] == 3 and outcome.result["rendered"] == 1
    found = lines(outcome.folder)
    assert len({one["key"] for one in found}) == 1 and len({pixels(outcome.folder / one["image"]) for one in found}) == 1
    assert [[two["reference"] for two in one["render"]["adapters"]] for one in found] == [[], ["ink"], ["hat"]]
    assert [len(read_png(outcome.folder / one["image"]).render.adapters) for one in found] == [0, 1, 1]


@pytest.mark.slow
def test_settings_that_change_nothing_are_reported(shelf: Shelf) -> None:
    outcome = run(config(shelf, {"negative": [None, "", "a tree"]}), shelf.store)  # no negative prompt is the empty one in sd1
    assert outcome.notes == ("The same pixels, bit for bit, came of negative 'none' and negative ''.",)


@pytest.mark.slow
def test_source_images_are_in_sheet_and_report(shelf: Shelf, tmp_path: Path) -> None:
    for name, colour in (("photo", (250, 120, 0)), ("other", (0, 120, 250)), ("mask", (255, 255, 255))):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{name}.png")
    axes = {"init": [str(tmp_path / "photo.png"), str(tmp_path / "other.png")], "seed": [1, 2]}
    folder = run(config(shelf, axes, mask=str(tmp_path / "mask.png"), strength=1.0), shelf.store).folder
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert [report.count(f"<figcaption>{name}.png</figcaption>") for name in ("init photo", "init other", "mask mask")] == [1, 1, 1]
    with Image.open(folder / "sheet.png") as sheet:
        assert {(250, 120, 0), (0, 120, 250)} <= {colour for _count, colour in sheet.getcolors(1 << 20) or []}


class Interrupt:
    """A Report that interrupts after so many cells."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, tick: Tick) -> None:
        if tick.stage == "cells" and tick.done == self.after:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_drawn(shelf: Shelf) -> None:
    asked = config(shelf, {"seed": "1-5"})
    with pytest.raises(KeyboardInterrupt):
        run(asked, shelf.store, report=Interrupt(after=2))
    (folder,) = (shelf.work / "grid").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert (result["rendered"], result["missing"]) == (2, 3)
    assert [one["status"] for one in lines(folder)] == ["rendered", "rendered", "missing", "missing", "missing"]
    assert (folder / "sheet.png").is_file() and (folder / "report.html").is_file()
    again = run(asked, shelf.store).result
    assert (again["rendered"], again["reused"], again["missing"]) == (3, 2, 0)


@pytest.mark.slow
def test_a_damaged_cell_is_reported_and_drawn_again(shelf: Shelf) -> None:
    asked = config(shelf, {"seed": [1, 2]})
    first = run(asked, shelf.store)
    key = lines(first.folder)[1]["key"]
    path = CellStore().folder / key[:2] / f"{key}.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"?" + whole[101:])
    again = run(asked, shelf.store)
    assert (again.result["rendered"], again.result["reused"]) == (1, 1)
    assert len(again.notes) == 1 and "damaged" in again.notes[0] and key in again.notes[0]
    assert path.read_bytes() == whole


def break_seed(monkeypatch: pytest.MonkeyPatch, *seeds: int) -> None:
    import infer.draw.session
    from infer.draw.draw import draw_latents

    def broken(family: Any, parts: Any, render: Render, *rest: Any, **options: Any) -> Any:
        if render.seed in seeds:
            raise RuntimeError("no memory left")
        return draw_latents(family, parts, render, *rest, **options)

    monkeypatch.setattr(infer.draw.session, "draw_latents", broken)


@pytest.mark.slow
def test_a_cell_that_fails_is_recorded_and_the_grid_goes_on(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = config(shelf, {"seed": [1, 2, 3]})
    with monkeypatch.context() as broken:
        break_seed(broken, 2)
        outcome = run(asked, shelf.store)
    assert (outcome.result["rendered"], outcome.result["failed"]) == (2, 1)
    failed = lines(outcome.folder)[1]
    assert (failed["status"], failed["image"], failed["error"]) == ("failed", None, "RuntimeError: no memory left")
    assert "no memory left" in (outcome.folder / "report.html").read_text()
    assert run(asked, shelf.store).result["failed"] == 0  # a failure is not kept


def test_strict_stops_at_the_first_failure(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    break_seed(monkeypatch, 2)
    with pytest.raises(JobFailed, match="no memory left"):
        run(config(shelf, {"seed": [1, 2, 3]}, strict=True), shelf.store)
    (folder,) = (shelf.work / "grid").iterdir()
    assert [one["status"] for one in lines(folder)] == ["rendered", "missing", "missing"]


def test_a_grid_without_one_image_has_failed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    import infer.stages.loading

    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(infer.stages.loading, "load_base", broken)
    with pytest.raises(JobFailed, match="None of the 2 cells could be drawn: OSError: the disk is gone"):
        run(config(shelf, {"seed": [1, 2]}), shelf.store)


def test_a_refused_grid_makes_no_folder(shelf: Shelf) -> None:
    with pytest.raises(Faults):
        run(config(shelf, {"sampler": ["eulre"]}), shelf.store)
    assert not shelf.work.exists()


@pytest.mark.slow
def test_a_moved_base_is_the_same_base(shelf: Shelf, tmp_path: Path) -> None:
    shutil.copytree(shelf.base, tmp_path / "copy")
    run(config(shelf, {"seed": [1, 2]}), shelf.store)
    assert run(config(shelf, {"seed": [1, 2]}, base=str(tmp_path / "copy")), shelf.store).result["rendered"] == 0


@pytest.mark.slow
def test_a_killed_grid_goes_on_where_it_was(shelf: Shelf) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from infer.grid.config import Axes, GridConfig
from infer.grid.job import run
from registry.store import Store
run(GridConfig(base="tiny", prompt="a cat", steps=4, axes=Axes(seed="1-120"), out={str(shelf.work)!r}), Store())
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    cells = CellStore().folder

    def drawn() -> bool:
        assert process.poll() is None, "ended before it was killed"
        return len(list(cells.glob("*/*.json"))) >= 8

    until(drawn)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(cells.glob("*/*.json")))
    assert 8 <= kept < 120
    result = run(config(shelf, {"seed": "1-120"}, steps=4, guidance=None), shelf.store).result
    assert (result["reused"], result["rendered"], result["failed"]) == (kept, 120 - kept, 0)


# --- while it is drawn


@pytest.mark.slow
def test_images_cells_and_report_follow_the_drawing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer.grid.run_folder, "EVERY", 0.0)
    monkeypatch.setattr(infer.grid.run_folder, "SHARE", 1e9)
    seen: list[tuple[list[str], int, bool, int]] = []

    def look(tick: Tick) -> None:
        if tick.stage == "cells":
            (folder,) = (shelf.work / "grid").iterdir()
            page = (folder / "report.html").read_text(encoding="utf-8")
            parts = (folder / "live" / "0.js").read_text(encoding="utf-8")
            statuses = [one["status"] for one in lines(folder)]
            seen.append((statuses, len(list((folder / "images").iterdir())), '"live":true' in page, parts.count('"status":"rendered"')))

    outcome = run(config(shelf, {"seed": [1, 2, 3]}), shelf.store, report=look)
    assert seen == [
        (["rendered", "missing", "missing"], 1, True, 1),
        (["rendered", "rendered", "missing"], 2, True, 2),
        (["rendered", "rendered", "rendered"], 3, True, 3),
    ]
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert '"live":false' in page and page.count('"status":"rendered"') == 3 and not (outcome.folder / "live").exists()


@pytest.mark.slow
def test_the_live_files_are_written_rarely_where_writing_takes_long(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = infer.output.report.write_live_report

    def slow(path: Path, gallery: Any, live: Any) -> None:
        written.append(sum(one.status != "missing" for one in gallery.images))
        write(path, gallery, live)

    monkeypatch.setattr(infer.grid.run_folder, "write_live_report", slow)
    monkeypatch.setattr(infer.grid.run_folder, "EVERY", 3600.0)
    run(config(shelf, {"seed": [1, 2, 3]}), shelf.store)
    assert written == [0], "once at the start, so that there is something to open"


def later(act: Callable[..., Any]) -> Callable[..., Any]:
    """The function, 0.2 seconds later."""

    def slow(*given: Any, **options: Any) -> Any:
        time.sleep(0.2)
        return act(*given, **options)

    return slow


@pytest.mark.slow
def test_seconds_are_those_of_the_whole_job(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((infer.grid.job, "plan"), (infer.grid.run_folder, "write_sheet"), (infer.grid.run_folder, "write_report")):
        monkeypatch.setattr(module, name, later(getattr(module, name)))
    outcome = run(config(shelf, {"seed": [1, 2]}), shelf.store)
    assert outcome.result["seconds"] >= 0.6 + sum(one["seconds"] for one in lines(outcome.folder))


KILLED = """
import os, signal, sys
from pathlib import Path
import infer.grid.run_folder
from infer.grid.config import Axes, GridConfig
from infer.grid.job import run
from registry.store import Store

infer.grid.run_folder.EVERY, infer.grid.run_folder.SHARE = 0.0, 1e9

def kill(tick):
    if tick.stage == "cells" and tick.done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

asked = GridConfig(base="tiny", prompt="a cat", steps=2, guidance=3.0, out=sys.argv[2], axes=Axes(seed=[1, 2, 3, 4]))
run(asked, Store(Path(sys.argv[1])), report=kill)
"""


@pytest.mark.slow
def test_a_kill_leaves_what_was_drawn_to_be_seen_and_the_next_run_finishes_it(shelf: Shelf) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(shelf.home), str(shelf.work)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    (folder,) = (shelf.work / "grid").iterdir()
    assert [one["status"] for one in lines(folder)] == ["rendered", "rendered", "missing", "missing"]
    assert [one["error"] for one in lines(folder)] == [None, None, "not drawn yet", "not drawn yet"]
    assert len({pixels(folder / one["image"]) for one in lines(folder)[:2]}) == 2
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert (folder / "live" / "0.js").read_text(encoding="utf-8").count('"status":"rendered"') == 2  # which the page loads
    again = run(config(shelf, {"seed": [1, 2, 3, 4]}), shelf.store)
    assert (again.result["rendered"], again.result["reused"]) == (2, 2)
