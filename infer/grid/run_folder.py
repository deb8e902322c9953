"""The run folder of a grid, whole at every moment: each image as it is drawn, cells.jsonl and a report that follow, the rest at the end.

Every file is written beside its name and renamed, so that a kill leaves what there was. Nothing is read back: the same grid, started
again, finds the finished cells in the store and makes a folder of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from infer.draw.render import SETTINGS
from infer.grid.cells import CellStore
from infer.grid.engine import CellResult, Counts
from infer.grid.image_names import image_name
from infer.grid.layout import Cell, shared_adapters
from infer.grid.plan import GridPlan
from infer.grid.processes import Work
from infer.output.command import command_of
from infer.output.encoding import QUALITY, SUFFIXES, ImageFormat
from infer.output.gallery import UNFINISHED, CellImage, Gallery, look_alikes, shared_settings, spell_details, spell_settings
from infer.output.lossy import encode_lossy
from infer.output.model_names import model_names
from infer.output.page.live import LiveParts
from infer.output.png import labelled
from infer.output.report import write_live_report, write_report
from infer.output.sheet import write_sheet
from infer.output.sources import cell_sources, source_images
from infer.outside.shown import outside_image, outside_line
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file, write_json, write_text
from registry.printable import shell_line
from registry.progress import Report, Tick

if TYPE_CHECKING:
    from infer.score.compute import GridScores

EVERY = 3.0  # seconds between two writings of the live files at least
SHARE = 0.1  # of the time may go into them
AXIS_OF = {one.label: one.axis.name or one.name for one in SETTINGS.values() if one.axis is not None}


class RunFolder:
    """A grid's folder while it is drawn. `began` is the job's start, on the monotonic clock."""

    def __init__(self, folder: Path, planned: GridPlan, cells: CellStore, counts: Counts, *, began: float) -> None:
        self.path = folder
        self.results: dict[str, CellResult] = {}
        self._planned = planned
        self._cells = cells
        self._counts = counts
        self._began = began
        self._images = [self._waiting(cell) for cell in planned.cells]
        self._lines: dict[int, tuple[CellImage, str]] = {}  # of cells.jsonl, with the image that each was written of
        self._places: dict[str, list[int]] = {}
        for index, image in enumerate(self._images):
            self._places.setdefault(image.key, []).append(index)
        renders = [cell.render for cell in planned.cells]
        self._sources, left_out = source_images(renders, planned.resolver.hints)
        shown = cell_sources(renders, planned.resolver.hints)
        self._images = [replace(image, sources=own) for image, own in zip(self._images, shown, strict=True)]
        for note in left_out:
            counts.note(note)
        self._live = LiveParts(self.path / "report.html")
        self.processes: list[Work] = []  # of several, what each has done
        self._due = 0.0
        self._scores: GridScores | None = None
        self._outside = [outside_image(one, self.path, planned.resolver.images) for one in planned.outside]
        self._write_live()

    def add(self, result: CellResult) -> None:
        """Keep a result: its images at once, the live files when they are due."""
        self.results[result.key] = result
        for index in self._places.get(result.key, ()):
            self._images[index] = self._finished(self._images[index], self._planned.cells[index], result)
        if monotonic() >= self._due:
            self._write_live()

    def finish(self, report: Report) -> dict[str, Any]:
        """Write cells.jsonl, sheet, report and result.json of what there is; gives result.json."""
        report(Tick("write", 0, 2, note="sheet"))
        self._images = [replace(one, error=UNFINISHED) if one.status == "missing" else one for one in self._images]
        self._write_lines()
        self._score(report)
        for note in look_alikes(self._images):
            self._counts.note(note)
        for note in write_sheet(self.path / "sheet.png", self._gallery()):
            self._counts.note(note)
        report(Tick("write", 1, 2, note="report"))
        for note in write_report(self.path / "report.html", self._gallery(), single_file=self._planned.config.single_file):
            self._counts.note(note)
        result = self._result()
        write_json(self.path / "result.json", result)
        report(Tick("write", 2, 2))
        return result

    def _score(self, report: Report) -> None:
        """The scores that were asked for, of the folder as it is; an interrupted grid is left without."""
        if not self._planned.scores:
            return
        if any(one.error == UNFINISHED for one in self._images):
            self._counts.note(f"The run was interrupted: no scores. They are added by: {shell_line('loraloom', 'score', self.path)}")
            return
        from infer.score.compute import score_grid
        from infer.score.page import write_score_page
        from infer.vote.finished import read_grid

        grid = read_grid(self.path)
        found = self._scores = score_grid(grid, self._planned.scores, self._cells.folder.parent, report=report)
        for note in found.notes:
            self._counts.note(note)
        self._images = [_scored(one, found, number) for number, one in enumerate(self._images)]
        numbers = {cell.key: number for number, cell in enumerate(grid.cells)}  # an image made elsewhere has one line for several places
        self._outside = [_scored(one, found, numbers[one.key]) for one in self._outside]
        write_score_page(self.path / "scores.html", self._planned.config.name or "grid", found.to_json())
        self._write_lines()

    def _write_live(self) -> None:
        """cells.jsonl and what the open report takes in; rarer when they take long, so that drawing is not held up."""
        began = monotonic()
        self._write_lines()
        write_live_report(self.path / "report.html", self._gallery(), self._live)
        ended = monotonic()
        self._due = ended + max(EVERY, (ended - began) / SHARE)

    def _write_lines(self) -> None:
        for index, (image, cell) in enumerate(zip(self._images, self._planned.cells, strict=True)):
            if index not in self._lines or self._lines[index][0] is not image:
                self._lines[index] = image, _line(image, cell, self.path, self.results.get(image.key))
        lines = (self._lines[index][1] for index in range(len(self._images)))
        others = dict.fromkeys(outside_line(one, image, self.path) for one, image in zip(self._planned.outside, self._outside, strict=True))
        write_text(self.path / "cells.jsonl", "".join([*lines, *others]))

    def _result(self) -> dict[str, Any]:
        """What result.json says; `seconds` are those since the job began."""
        statuses = [one.status for one in self.results.values()]
        work = self.processes
        drawn = Counter(one.process for one in self.results.values())
        return {
            "cells": len(self._planned.cells),
            "rendered": statuses.count("rendered"),
            "reused": statuses.count("reused"),
            "failed": statuses.count("failed"),
            "missing": len(self._places) - len(self.results),
            "outside": sum(one.match is not None for one in self._planned.outside),
            "encodes": sum(one.encodes for one in work) if work else self._counts.encodes,
            "forwards": sum(one.forwards for one in work) if work else self._counts.forwards,
            "latents_reused": sum(one.latents_reused for one in work) if work else self._counts.latents_reused,
            "model_loads": sum(one.model_loads for one in work) if work else self._counts.model_loads,
            **({"processes": [{**asdict(one), "cells": drawn[one.process]} for one in work]} if work else {}),
            "seconds": round(monotonic() - self._began, 3),
            "scores": None if self._scores is None else self._scores.to_json(),
            "sheet": str(self.path / "sheet.png"),
            "report": str(self.path / "report.html"),
        }

    def _gallery(self) -> Gallery:
        layout = self._planned.layout
        varied = {part for one in layout.dimensions for axis in one.axes for part in (axis, axis.partition(".")[0])}
        shared = shared_settings([one.settings for one in self._images]) | shared_adapters(self._planned.cells)
        return Gallery(
            sources=self._sources,
            title=self._planned.config.name or "grid",
            layout=layout,
            images=[*self._images, *self._outside],
            fixed={name: shared[name] for name in self._images[0].settings if name in shared and AXIS_OF.get(name, name) not in varied},
            notes=self._counts.notes,
            scores=() if self._scores is None else self._scores.shown(),
            result=self._result(),
        )

    def _waiting(self, cell: Cell) -> CellImage:
        base = self._planned.resolver.base(cell.render)
        return CellImage(
            place=cell.place,
            key=cell.render.key(),
            status="missing",
            path=None,
            settings=spell_settings(cell.render, base=base.record.name, scheduler=base.facts.scheduler_class),
            details=spell_details(cell.render),
            command=command_of(cell.render, self._planned.resolver.lasting),
            error="not drawn yet",
        )

    def _finished(self, waiting: CellImage, cell: Cell, result: CellResult) -> CellImage:
        """The cell with its image, which is written into the folder under the cell's own names."""
        found = replace(waiting, status=result.status, seconds=result.seconds, error=result.error)
        if result.status == "failed" or (stored := self._cells.get(result.key)) is None:
            return found
        own = labelled(stored.png, cell.render, model_names(self._planned.resolver, cell.render))
        config = self._planned.config
        path = (self.path / "images" / image_name(cell.values)).with_suffix(SUFFIXES[config.image_format.name])
        data = (
            own.png
            if config.image_format is ImageFormat.png
            else encode_lossy(own.png, config.image_format.name, config.quality or QUALITY)
        )
        make_folder(path.parent)
        with atomic_file(path, needed=len(data)) as file:
            file.write(data)
        return replace(found, path=path, parameters=own.parameters, pixels_sha256=own.pixels_sha256)


def _scored(image: CellImage, scores: GridScores, number: int) -> CellImage:
    return replace(image, scores=scores.numbers(number), details={**image.details, **scores.texts(number)})


def _line(image: CellImage, cell: Cell, folder: Path, result: CellResult | None) -> str:
    entry = {
        "key": image.key,
        "render": cell.render.to_json(),
        "image": image.path.relative_to(folder).as_posix() if image.path else None,
        "status": image.status,
        "seconds": round(image.seconds, 4),
        "scores": dict(image.scores),
        "axes": dict(cell.values),
        "error": image.error,
    } | ({"process": result.process} if result is not None and result.process is not None else {})
    return json.dumps(entry, ensure_ascii=False, default=str) + "\n"
