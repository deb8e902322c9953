"""The grid as a job: plan it, draw what is missing, and leave a run folder that a person and a program can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import yaml

from infer.draw.render import SETTINGS
from infer.draw.session import model_names
from infer.grid.cells import CellStore
from infer.grid.config import GridConfig, to_plain
from infer.grid.engine import CellResult, Counts, render_cells
from infer.grid.image_names import image_name
from infer.grid.layout import Cell
from infer.grid.plan import GridPlan, plan_grid
from infer.output.gallery import CellImage, Gallery, look_alikes, shared_settings, spell_details, spell_settings
from infer.output.png import label_png, read_carried
from infer.output.report import write_report
from infer.output.sheet import write_sheet
from registry.errors import JobFailed
from registry.files.write_failure import make_folder, write_failed
from registry.formats.atomic_file import atomic_file, write_json, write_text
from registry.progress import Report, Tick, silent

if TYPE_CHECKING:
    from registry.store import Store


@dataclass(frozen=True, kw_only=True)
class GridOutcome:
    """A finished grid: its folder (absolute), the dict of result.json, and notes for a person."""

    folder: Path
    result: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def plan(config: GridConfig, store: Store) -> GridPlan:
    """Everything checked, nothing loaded. Raises Faults."""
    return plan_grid(config, store, cells_of(store))


def cells_of(store: Store) -> CellStore:
    """The cells of a Store's home."""
    return CellStore(store.home / "cells")


def run(config: GridConfig, store: Store, *, report: Report = silent) -> GridOutcome:
    """Plan and draw a grid into a new run folder.

    Raises Faults before anything is made; JobFailed when no cell could be drawn, or at the first that fails under
    `strict`. An interrupt, like every failure, leaves the folder with what was drawn.
    """
    return draw_plan(plan(config, store), store, report=report)


def render_grid(config: GridConfig, *, store: Store | None = None, report: Report = silent) -> GridOutcome:
    """`run` for notebooks and scripts, on the home's own Store unless one is given.

    render_grid(GridConfig(prompt="a cat", axes=Axes(seed="1-4", adapter=["none", "ink"]))).result["report"]
    """
    from registry.store import Store as HomeStore

    return run(config, store if store is not None else HomeStore(), report=report)


def draw_plan(planned: GridPlan, store: Store, *, report: Report = silent, cells: CellStore | None = None) -> GridOutcome:
    """Draw a plan into a new run folder; see `run`."""
    cells = cells if cells is not None else cells_of(store)
    with cells.kept():
        return _drawn(planned, store, cells, report)


def _drawn(planned: GridPlan, store: Store, cells: CellStore, report: Report) -> GridOutcome:
    began = monotonic()
    planned.resolver.images.keep(file for cell in planned.cells for file in cell.render.images.values())
    config = planned.config
    folder = new_folder(Path(config.out), config.name or "grid")
    write_text(folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=160))
    counts, results = Counts(notes=list(planned.notes)), dict[str, CellResult]()
    try:
        render_cells(
            [cell.render for cell in planned.cells],
            store,
            cells,
            report=report,
            strict=config.strict,
            counts=counts,
            resolver=planned.resolver,
            on_result=lambda result: results.__setitem__(result.key, result),
        )
    finally:
        outcome = _finish(folder, planned, results, cells, counts, report, seconds=monotonic() - began)
    if results and all(one.status == "failed" for one in results.values()):
        errors = list(dict.fromkeys(str(one.error) for one in results.values()))
        raise JobFailed(f"None of the {len(results)} cells could be drawn: {errors[0]} The folder {folder} has the details.")
    return outcome


def new_folder(out: Path, name: str) -> Path:
    """A new `<out>/<name>/<stamp>`, absolute; two in one second do not collide."""
    parent = make_folder((out / name).absolute())
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise write_failed(folder, error) from error


def _finish(
    folder: Path, planned: GridPlan, results: Mapping[str, CellResult], cells: CellStore, counts: Counts, report: Report, *, seconds: float
) -> GridOutcome:
    """Write images, cells.jsonl, sheet, report and result.json of what there is."""
    report(Tick("write", 0, 3, note="images"))
    images = [_image(folder, cell, planned, results, cells) for cell in planned.cells]
    write_text(folder / "cells.jsonl", "".join(_line(image, cell, folder) for image, cell in zip(images, planned.cells, strict=True)))
    for note in look_alikes(images):
        counts.note(note)
    statuses = [one.status for one in results.values()]
    result: dict[str, Any] = {
        "cells": len(planned.cells),
        "rendered": statuses.count("rendered"),
        "reused": statuses.count("reused"),
        "failed": statuses.count("failed"),
        "encodes": counts.encodes,
        "forwards": counts.forwards,
        "model_loads": counts.model_loads,
        "seconds": round(seconds, 3),
        "sheet": str(folder / "sheet.png"),
        "report": str(folder / "report.html"),
    }
    varied = {axis for one in planned.layout.dimensions for axis in one.axes}
    gallery = Gallery(
        title=planned.config.name or "grid",
        layout=planned.layout,
        images=images,
        fixed={
            name: value
            for name, value in shared_settings([one.settings for one in images]).items()
            if _AXIS_OF.get(name, name) not in varied
        },
        notes=counts.notes,
        result=result,
    )
    report(Tick("write", 1, 3, note="sheet"))
    for note in write_sheet(folder / "sheet.png", gallery):
        counts.note(note)
    report(Tick("write", 2, 3, note="report"))
    for note in write_report(folder / "report.html", gallery):
        counts.note(note)
    write_json(folder / "result.json", result)
    report(Tick("write", 3, 3))
    return GridOutcome(folder=folder, result=result, notes=tuple(counts.notes))


_AXIS_OF = {one.label: one.axis.name or one.name for one in SETTINGS.values() if one.axis is not None}


def _image(folder: Path, cell: Cell, planned: GridPlan, results: Mapping[str, CellResult], cells: CellStore) -> CellImage:
    """The cell's image in the folder, under the cell's own names."""
    key, render = cell.render.key(), cell.render
    result, resolver = results.get(key), planned.resolver
    base = resolver.base(render)
    path, parameters, pixels = None, "", ""
    if result and result.status != "failed" and (stored := cells.get(key)):
        png = label_png(stored.png, render, model_names(resolver, render))
        carried = read_carried(png)
        parameters, pixels = carried.parameters, carried.pixels_sha256
        path = folder / "images" / image_name(cell.values)
        make_folder(path.parent)
        with atomic_file(path) as file:
            file.write(png)
    return CellImage(
        place=cell.place,
        key=key,
        status=result.status if result else "missing",
        path=path,
        settings=spell_settings(render, base=base.record.name, scheduler=base.skeleton.scheduler_class),
        details=spell_details(render),
        parameters=parameters,
        pixels_sha256=pixels,
        seconds=result.seconds if result else 0.0,
        error=result.error if result else "not drawn: the run was interrupted",
    )


def _line(image: CellImage, cell: Cell, folder: Path) -> str:
    entry = {
        "key": image.key,
        "render": cell.render.to_json(),
        "image": image.path.relative_to(folder).as_posix() if image.path else None,
        "status": image.status,
        "seconds": round(image.seconds, 4),
        "scores": {},  # a documented key; nothing scores an image yet
        "axes": dict(cell.values),
        "error": image.error,
    }
    return json.dumps(entry, ensure_ascii=False, default=str) + "\n"
