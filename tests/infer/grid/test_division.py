"""Which cells a process draws where others are at work: whole bases, then whole sets of adapters, then what is left from its end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.draw.files import Adapter
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.grid import division, job
from infer.grid.cells import CellStore
from infer.grid.config import Axes, GridConfig
from infer.grid.engine import CellResult, Counts, render_cells
from infer.grid.job import run
from infer.grid.order import added, loading
from infer.grid.processes import no_locks_note
from infer.output.infotext import ModelNames
from infer.output.png import encode_png
from registry.files.read_ahead import ReadAhead
from registry.launch.processes import Launch
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.patience import until
from tests.tiny import tiny_sd1

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

ROOT = Path(__file__).parents[3]
SECOND = Launch(rank=1, local=1, count=2, name="here")


def resolved(shelf: Shelf, *changes: dict[str, Any]) -> list[Render]:
    resolver = Resolver(shelf.store)
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 1, "sampler": "ddim"}
    return [resolver.resolve(Render(**given | change)) for change in changes]


@pytest.mark.slow
def test_a_base_that_another_process_has_claimed_is_left_to_the_end(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(tiny_sd1(tmp_path / "second", prediction="v_prediction"), name="second")
    asked = resolved(shelf, *({"base": base, "seed": seed} for base in ("tiny", "second") for seed in (1, 2)))
    cells, drawn, counts = CellStore(tmp_path / "cells"), list[str](), Counts()
    with cells.claimed("base", loading(asked[0])) as mine:
        assert mine
        render_cells(asked, shelf.store, cells, counts=counts, on_result=lambda one: drawn.append(one.render.base))
    assert drawn == ["second", "second", "tiny", "tiny"] and counts.model_loads == 2
    assert not list((tmp_path / "cells").rglob("*.lock"))


@pytest.mark.slow
def test_the_next_base_is_read_ahead_while_one_draws(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.store.add(tiny_sd1(tmp_path / "second", prediction="v_prediction"), name="second")
    seen: list[Any] = []

    class Watched(ReadAhead):
        def start(self) -> None:
            seen.append(sorted(self._paths))
            super().start()

    monkeypatch.setattr(division, "ReadAhead", Watched)
    asked = resolved(shelf, {"base": "tiny"}, {"base": "second"})
    render_cells(asked, shelf.store, CellStore(tmp_path / "cells"), on_result=lambda one: seen.append(one.render.base))
    weights = set((tmp_path / "second").rglob("*.safetensors"))
    assert weights <= set(seen[0]) and seen[1:] == ["tiny", "second"]


@pytest.mark.slow
def test_claimed_adapters_are_left_to_the_end_and_helped_with_from_their_end(shelf: Shelf, tmp_path: Path) -> None:
    ink, hat = (Adapter(reference=name) for name in ("ink", "hat"))
    asked = resolved(shelf, *({"adapters": (one,), "seed": seed} for one in (ink, hat) for seed in (1, 2, 3)))
    cells, drawn = CellStore(tmp_path / "cells"), list[tuple[str, int]]()

    def keep(one: CellResult) -> None:
        drawn.append((one.render.adapters[0].reference, one.render.seed))

    with cells.claimed("adapters", (loading(asked[0]), added(asked[0]))):
        render_cells(asked, shelf.store, cells, on_result=keep)
    assert drawn == [("hat", 1), ("hat", 2), ("hat", 3), ("ink", 3), ("ink", 2), ("ink", 1)]


def test_where_there_are_no_locks_a_process_begins_with_its_share(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, drawn = resolved(shelf, *({"seed": seed} for seed in range(1, 6))), list[int]()
    cells = CellStore(tmp_path / "cells")
    assert no_locks_note(cells.folder, SECOND) is None
    monkeypatch.setattr("infer.grid.processes.take", lambda _descriptor, **_options: None)
    assert "has no locks" in str(no_locks_note(cells.folder, SECOND)) and no_locks_note(cells.folder, Launch()) is None
    render_cells(asked, shelf.store, cells, launch=SECOND, locks=False, on_result=lambda one: drawn.append(one.render.seed))
    assert drawn == [2, 4, 1, 3, 5]


def config(shelf: Shelf, seeds: int, **settings: Any) -> GridConfig:
    given = {"base": "tiny", "prompt": "a cat", "steps": 2, "sampler": "ddim", "out": str(shelf.work), "device": "cpu"}
    return GridConfig(**given, axes=Axes(seed=[f"1-{seeds}"]), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_only_the_first_process_makes_a_folder_and_it_counts_the_work_of_all(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    helped = run(config(shelf, 3, batch_size=batch_size), shelf.store)
    assert helped.result["failed"] == 0 and not shelf.work.exists() and len(list((shelf.home / "cells").glob("??/*.png"))) == 3
    monkeypatch.setenv("RANK", "0")
    first = run(config(shelf, 4, batch_size=batch_size), shelf.store)
    shown = {name: first.result[name] for name in ("cells", "rendered", "reused", "forwards", "model_loads")}
    assert shown == {"cells": 4, "rendered": 1, "reused": 3, "forwards": 2, "model_loads": 1}  # the other's grid was another one
    assert [(one["process"], one["cells"]) for one in first.result["processes"]] == [(0, 1)]
    lines = [json.loads(line) for line in (first.folder / "cells.jsonl").read_text().splitlines()]
    assert [line.get("process") for line in lines] == [None, None, None, 0]


def two(shelf: Shelf) -> dict[str, Any]:
    """result.json of the first of two processes over twelve cells; the other one is killed after its second.

    The first is stopped between its first cell and the other's: both draw, however unlike they start.
    """
    arguments = ["base=tiny", "prompt=a cat", "steps=60", "sampler=ddim", "axes.seed=1-12", "device=cpu", f"out={shelf.work}"]

    def started(rank: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "loraloom", "grid", *arguments],
            cwd=ROOT,
            env=os.environ | {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_PORT": "29511"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(is_so: Callable[[], object], process: subprocess.Popen[str]) -> None:
        def now() -> bool:
            found = bool(is_so())
            assert found or process.poll() is None, "it ended too soon"
            return found

        until(now, every=0.01)

    first = started(0)
    wait(lambda: drawn_by(shelf, 0), first)
    first.send_signal(signal.SIGSTOP)
    second = started(1)
    try:
        wait(lambda: drawn_by(shelf, 1), second)
    finally:
        first.send_signal(signal.SIGCONT)
    wait(lambda: len(drawn_by(shelf, 1)) >= 2, second)
    second.kill()
    (printed, said), (other, _) = (process.communicate(timeout=300) for process in (first, second))
    assert first.returncode == 0, said
    assert other == "" and len(printed.splitlines()) == 1
    return dict(json.loads((Path(printed.strip()) / "result.json").read_text()))


def drawn_by(shelf: Shelf, process: int) -> list[Path]:
    return [path for path in (shelf.home / "cells").glob("??/*.json") if f'"process": {process}' in path.read_text()]


def test_what_others_drew_before_an_early_end_is_taken_in(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = GridConfig(base="tiny", prompt="a cat", steps=1, size=32, axes=Axes(seed=[1, 2, 3]), out=str(shelf.work))

    def ended(planned: Any, _store: Store, cells: CellStore, *_rest: object) -> None:
        render = planned.cells[1].render
        png = encode_png(Image.new("RGB", (32, 32), "red"), render, ModelNames(base="tiny", adapters={}))
        CellStore(cells.folder, process=1).put(render, png, seconds=0.5, forwards=2)
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_render", ended)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(KeyboardInterrupt):
        run(asked, shelf.store)
    (folder,) = (shelf.work / "grid").iterdir()
    lines = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    assert [(one["status"], one.get("process")) for one in lines] == [("missing", None), ("rendered", 1), ("missing", None)]
    result = json.loads((folder / "result.json").read_text())
    assert result["rendered"] == 1 and len(result["processes"]) == 1 and (folder / lines[1]["image"]).is_file()


@pytest.mark.slow
def test_two_processes_draw_each_cell_once_and_what_a_killed_one_leaves(shelf: Shelf, tmp_path: Path) -> None:
    result = two(shelf)
    assert (result["cells"], result["rendered"], result["reused"], result["failed"]) == (12, 12, 0, 0)
    (folder,) = (shelf.work / "grid").iterdir()
    lines = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    by = [[line["process"] for line in lines].count(process) for process in range(2)]
    assert sum(by) == 12 and min(by) >= 2 and [one["cells"] for one in result["processes"]] == by
    assert by[1] <= 4, "it was killed while it drew its third one"
    first, killed = (one["forwards"] for one in result["processes"])
    assert first == 60 * by[0] and killed <= 60 * by[1], "none was drawn by both"
    fresh = Store(tmp_path / "alone")
    fresh.add(shelf.base, name="tiny")
    alone = run(
        GridConfig(base="tiny", prompt="a cat", steps=60, sampler="ddim", axes=Axes(seed=["1-12"]), out=str(tmp_path / "o"), device="cpu"),
        fresh,
    )
    for path in sorted((alone.folder / "images").iterdir()):
        assert path.read_bytes() == (folder / "images" / path.name).read_bytes()
