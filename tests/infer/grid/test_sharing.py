"""Two grids over the same cells, and `registry gc` beside one: each cell is drawn once, and none is deleted under a grid."""

import threading
from pathlib import Path

import pytest

from infer.draw.render import Render
from infer.grid.cells import CellStore
from infer.grid.engine import CellResult, Counts, render_cells
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.patience import PATIENCE

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def cells_of(count: int) -> list[Render]:
    return [Render(base="tiny", prompt="a cat", steps=2, sampler="ddim", seed=seed) for seed in range(1, count + 1)]


@pytest.mark.slow
def test_two_grids_over_the_same_cells_draw_each_once(shelf: Shelf, tmp_path: Path) -> None:
    cells, renders, counts = CellStore(tmp_path / "cells"), cells_of(6), Counts()
    second: list[CellResult] = []
    begun = threading.Event()

    def draw_too() -> None:
        store = Store(shelf.home)
        second.extend(render_cells(renders, store, cells, on_result=lambda _: begun.set()))
        store.close()

    other = threading.Thread(target=draw_too)

    def after_the_first(_: CellResult) -> None:
        if not other.ident:
            other.start()
            assert begun.wait(PATIENCE)  # both are at work before the second cell

    first = render_cells(renders, shelf.store, cells, counts=counts, on_result=after_the_first)
    other.join()
    drawn = [one.key for one in (*first, *second) if one.status == "rendered"]
    assert sorted(drawn) == sorted(one.key for one in first) and {one.status for one in (*first, *second)} == {"rendered", "reused"}
    assert [one.path for one in first] == [one.path for one in second]
    assert not list((tmp_path / "cells").rglob("*.lock"))


def test_a_cell_that_another_process_draws_is_left_to_it_and_waited_for_at_the_end(shelf: Shelf, tmp_path: Path) -> None:
    cells, renders = CellStore(tmp_path / "cells"), cells_of(2)
    (done,) = render_cells(renders[:1], shelf.store, CellStore(tmp_path / "elsewhere"))
    assert done.path is not None
    found: list[CellResult] = []
    seen = threading.Event()

    def keep(result: CellResult) -> None:
        found.append(result)
        seen.set()

    with cells.alone(done.key, wait=False) as mine:
        assert mine
        grid = threading.Thread(target=lambda: render_cells(renders, Store(shelf.home), cells, on_result=keep))
        grid.start()
        assert seen.wait(PATIENCE) and [one.render.seed for one in found] == [2]
        cells.put(done.render, done.path.read_bytes(), seconds=1.0, forwards=2)
    grid.join()
    assert [(one.render.seed, one.status) for one in found] == [(2, "rendered"), (1, "reused")]


def test_gc_leaves_the_cells_of_a_grid_that_is_drawn(shelf: Shelf) -> None:
    cells = CellStore(shelf.home / "cells")
    (one,) = render_cells(cells_of(1), shelf.store, cells)
    with cells.kept():
        left = shelf.store.garbage(apply=True, caches=True)
        assert left.items == [] and "in use by a grid or a training" in left.left[0]
    assert cells.has(one.key)
    assert [item.why for item in shelf.store.garbage(apply=True, caches=True).items] == ["cache"] and not cells.has(one.key)
