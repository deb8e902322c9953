"""The grid as a job: plan it, draw what is missing, and leave a run folder that a person and a program can read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import yaml

from infer.draw.inputs import make_hints
from infer.grid.cell_result import CellResult, look_up
from infer.grid.cells import CellStore
from infer.grid.config import GridConfig, to_plain
from infer.grid.engine import Counts, render_cells
from infer.grid.plan import GridPlan, plan_grid
from infer.grid.processes import Processes, no_locks_note, use_own_device
from infer.grid.run_folder import RunFolder
from infer.output.page.live import FOLDER as LIVE
from infer.output.page.mended import being_drawn, was_killed
from infer.sharing.width import read_batch_size
from infer.stages.latents import LatentsStore, latents_of
from infer.vote.finished import read_grid
from registry.errors import Faults, JobFailed, LoomError
from registry.files.stamped_folder import new_folder
from registry.formats.atomic_file import write_text
from registry.launch.processes import Launch
from registry.printable import counted
from registry.progress import Report, silent

if TYPE_CHECKING:
    from registry.store import Store


LAST = 4  # grids of one name that are looked at for a killed one


@dataclass(frozen=True, kw_only=True)
class GridOutcome:
    """A finished grid: its folder (absolute), the dict of result.json, and notes for a person."""

    folder: Path
    result: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def plan(config: GridConfig, store: Store, *, given: Collection[str] | None = None) -> GridPlan:
    """Everything checked, nothing loaded. Raises Faults.

    With `from_image`, `given` names the settings that the image does not replace; None: those that differ from their defaults.
    """
    use_own_device(config.device, Launch.here())
    if config.from_image is None:
        return plan_grid(config, store, cells_of(store))
    from infer.grid.from_image import start_from

    filled, start = start_from(config, given, store)
    try:
        return plan_grid(filled, store, cells_of(store), start=start)
    except Faults as error:  # what the image does not give may be the reason
        raise Faults(f"A grid from {start.path.name} cannot be drawn:", [*error.faults, *start.missing()]) from error


def cells_of(store: Store) -> CellStore:
    """The cells of a Store's home."""
    return CellStore(store.home / "cells")


def run(config: GridConfig, store: Store, *, given: Collection[str] | None = None, report: Report = silent) -> GridOutcome:
    """Plan and draw a grid into a new run folder; `given` as in `plan`.

    Raises Faults before anything is made; JobFailed when no cell could be drawn, or at the first that fails under
    `strict`. An interrupt, like every failure, leaves the folder with what was drawn. Of several processes of `accelerate launch` only
    the first one makes a folder; the others draw, and give `out`.
    """
    began = monotonic()
    return draw_plan(plan(config, store, given=given), store, report=report, began=began)


def render_grid(config: GridConfig, *, store: Store | None = None, report: Report = silent) -> GridOutcome:
    """`run` for notebooks and scripts, on the home's own Store unless one is given.

    render_grid(GridConfig(prompt="a cat", axes=Axes(seed="1-4", adapter=["none", "ink"]))).result["report"]
    """
    from registry.store import Store as HomeStore

    return run(config, store if store is not None else HomeStore(), report=report)


def draw_plan(
    planned: GridPlan, store: Store, *, report: Report = silent, cells: CellStore | None = None, began: float | None = None
) -> GridOutcome:
    """Draw a plan into a new run folder; see `run`. `began` is when its job did, on the monotonic clock: `seconds` count from there."""
    began = monotonic() if began is None else began
    launch = Launch.here()
    cells = cells if cells is not None else cells_of(store)
    if launch.count > 1:
        cells = CellStore(cells.folder, process=launch.rank)
    latents = latents_of(store.home, planned.config.keep_latents)
    with cells.kept(), latents.kept() if latents is not None else nullcontext():
        if launch.is_first:
            return _drawn(planned, store, cells, latents, launch, report, began)
        return _helped(planned, store, cells, latents, launch)


def _helped(planned: GridPlan, store: Store, cells: CellStore, latents: LatentsStore | None, launch: Launch) -> GridOutcome:
    """Draw for the first process of the launch. A cell that fails is that one's to report."""
    planned.resolver.images.keep(file for cell in planned.cells for file in cell.render.images.values())
    make_hints([cell.render for cell in planned.cells], planned.resolver.hints)
    counts, processes = Counts(), _processes(planned, cells, launch)
    with processes.at_work(counts):
        _render(planned, store, cells, latents, launch, counts, silent, lambda _: processes.save(counts))
    result = {"cells": 0, "rendered": 0, "reused": 0, "failed": 0, "missing": 0, "seconds": 0.0, "report": None}
    return GridOutcome(folder=Path(planned.config.out).absolute(), result=result)


def _processes(planned: GridPlan, cells: CellStore, launch: Launch) -> Processes:
    return Processes(cells.folder, launch, (cell.render.key() for cell in planned.cells))


def _render(
    planned: GridPlan,
    store: Store,
    cells: CellStore,
    latents: LatentsStore | None,
    launch: Launch,
    counts: Counts,
    report: Report,
    on_result: Callable[[CellResult], None],
) -> None:
    """Draw what is missing, with the other processes of the launch."""
    note = no_locks_note(cells.folder, launch)
    if note is not None:
        counts.note(note)
    render_cells(
        [cell.render for cell in planned.cells],
        store,
        cells,
        report=report,
        strict=planned.config.strict,
        batch_size=read_batch_size(planned.config.batch_size),
        counts=counts,
        resolver=planned.resolver,
        latents=latents,
        launch=launch,
        locks=note is None,
        peak=None if planned.memory is None else planned.memory.peak,
        on_result=on_result,
    )


def _drawn(
    planned: GridPlan, store: Store, cells: CellStore, latents: LatentsStore | None, launch: Launch, report: Report, began: float
) -> GridOutcome:
    planned.resolver.images.keep(file for cell in planned.cells for file in cell.render.images.values())
    config = planned.config
    make_hints([cell.render for cell in planned.cells], planned.resolver.hints)
    path = new_folder(Path(config.out), config.name or "grid")
    with being_drawn(path):
        return _drawn_into(path, planned, store, cells, latents, launch, report, began)


def _drawn_into(
    path: Path,
    planned: GridPlan,
    store: Store,
    cells: CellStore,
    latents: LatentsStore | None,
    launch: Launch,
    report: Report,
    began: float,
) -> GridOutcome:
    config = planned.config
    write_text(path / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=160))
    counts = Counts(notes=list(planned.notes))
    for note in _taken_over(path, planned):
        counts.note(note)
    folder = RunFolder(path, planned, cells, counts, began=began)
    processes = _processes(planned, cells, launch)
    ended = False
    try:
        _render(planned, store, cells, latents, launch, counts, report, folder.add)
        ended = True
    finally:
        if launch.count > 1:
            _take_in(planned, cells, counts, folder)
            folder.processes = [processes.work(counts), *processes.others(wait=ended)]
        result = folder.finish(report)
    results = folder.results.values()
    if results and all(one.status == "failed" for one in results):
        errors = list(dict.fromkeys(str(one.error) for one in results))
        raise JobFailed(f"None of the {counted(len(results), 'cell')} could be drawn: {errors[0]} The folder {path} has the details.")
    return GridOutcome(folder=path, result=result, notes=tuple(counts.notes))


def _taken_over(path: Path, planned: GridPlan) -> Iterator[str]:
    """A note for each of the last grids of this name that was killed, whose images this one has."""
    if not planned.stored:
        return
    keys = {cell.render.key() for cell in planned.cells}
    for folder in sorted((one for one in path.parent.iterdir() if one != path), reverse=True)[:LAST]:
        with suppress(LoomError):  # cells.jsonl may be anyone's
            if was_killed(folder) and not keys.isdisjoint(one.key for one in read_grid(folder).cells):
                mend = f"; `loraloom report {folder}` makes its report whole" if (folder / LIVE).is_dir() else ""
                yield f"Images are taken over from {folder}, whose grid was killed{mend}."


def _take_in(planned: GridPlan, cells: CellStore, counts: Counts, folder: RunFolder) -> None:
    """What the other processes have drawn until an end that came too early; at any other end nothing is left."""
    for render in {cell.render.key(): cell.render for cell in planned.cells if cell.render.key() not in folder.results}.values():
        if stored := look_up(cells, render.key(), counts):
            folder.add(CellResult(key=stored.key, render=render, status="rendered", path=stored.path, process=stored.process))
