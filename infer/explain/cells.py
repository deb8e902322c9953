"""Cells of a finished grid explained: each in a folder of its own beside the grid's report, and in a tab of the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.resolve import Resolver
from infer.explain.explain import Explanation, explain_each
from infer.explain.page import PAGE, VALUES, panel, write_explanation
from infer.explain.plan import ExplainPlan, check_options, plan_render
from infer.grid.cells import CellStore
from infer.grid.job import cells_of
from infer.grid.order import grouped, loading
from infer.output.page.explained import FOLDER, add_panels, check_report
from infer.output.png import read_png
from infer.output.reproduce import with_found_files
from infer.vote.finished import FinishedGrid, GridCell, read_grid
from registry.errors import Faults, LoomError, Refused
from registry.files.write_failure import make_folder
from registry.plain_values import from_json
from registry.printable import as_lines, one_line, some
from registry.progress import Report, silent

if TYPE_CHECKING:
    from registry.store import Store

REPORT = "report.html"
NUMBER = re.compile(r"[0-9]{1,6}")
RANGE = re.compile(r"([0-9]{1,6})-([0-9]{1,6})")
PREFIX = re.compile(r"[0-9a-f]{8,64}")  # of a key


@dataclass(frozen=True, kw_only=True)
class CellsPlan:
    """The cells of a grid that are explained: those to draw, and the keys of those that were explained before."""

    folder: Path
    plans: tuple[ExplainPlan, ...]
    known: tuple[str, ...]
    notes: tuple[str, ...]
    stored: CellStore

    @property
    def images(self) -> int:
        """The images that are needed, cells of the grid among them."""
        return sum(1 + len(one.variants) for one in self.plans)

    @property
    def reused(self) -> int:
        """Those of them that were drawn before, by this or another grid, and are drawn for no frames."""
        return sum(self.stored.has(variant.render.key()) for one in self.plans for variant in one.variants)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "grid": str(self.folder),
            "explain": [one.to_json() for one in self.plans],
            "explained": list(self.known),
            "images": self.images,
            "reused": self.reused,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The plan for a person."""
        steps = sum(one.steps + sum(variant.steps for variant in one.variants) for one in self.plans)
        lines = [f"{self.folder}: {len(self.plans)} of its cells to explain, in at most {steps} steps"]
        lines += [f"  {self.reused} of the {self.images} images: drawn before"] if self.reused else []
        lines += [f"  {len(self.known)} of its cells: explained before"] if self.known else []
        lines += [f"  {one.path.name}: {', '.join(['the image', *(variant.name for variant in one.variants)])}" for one in self.plans[:20]]
        lines += [f"  and {len(self.plans) - 20} more"] if len(self.plans) > 20 else []
        return as_lines([*lines, *(f"note: {note}" for note in self.notes)])


def plan_cells(
    folder: Path, store: Store, *, cells: Sequence[str] | None = None, against: Sequence[str] = (), frames: int = 8
) -> CellsPlan:
    """What explaining cells of the grid in `folder` takes.

    `cells` are numbers as the lines of cells.jsonl count, from 1, ranges of them (1-3), or keys, or their first 8 or more
    digits; None: all that have an image.
    Raises NotFound where there is no grid, Faults with every cell that is none or cannot be drawn, Refused while the grid is drawn.
    """
    check_options(against, frames)
    grid = read_grid(folder)
    check_report(folder / REPORT)
    chosen, notes = _chosen(grid, cells)
    known = [one.key for one in chosen if _is_explained(folder, one.key, against, frames)]
    resolver, plans, faults = Resolver(store), [], list[str]()
    for one in (one for one in chosen if one.key not in known):
        assert one.image is not None
        try:
            render = with_found_files(read_png(one.image).render, store)
            plans.append(plan_render(one.image, render, resolver, against=against, frames=frames))
        except Faults as error:
            faults += error.faults
        except LoomError as error:
            faults.append(str(error))
    if faults:
        raise Faults(f"These cells of {one_line(folder)} cannot be explained:", list(dict.fromkeys(faults)))
    return CellsPlan(folder=folder, plans=tuple(plans), known=tuple(known), notes=tuple(notes), stored=cells_of(store))


def explain_cells(plan: CellsPlan, *, report: Report = silent) -> dict[str, Any]:
    """Explain the cells and show them in the grid's report; gives plain values: the report, and the page of each cell by its key.

    What was explained before a failure or an interrupt is kept and shown.
    """
    pages = {key: str(_folder(plan.folder, key) / PAGE) for key in plan.known}
    panels = {key: panel for key in plan.known if (panel := explained_panel(plan.folder, key)) is not None}
    notes = list(plan.notes)
    if plan.plans:
        make_folder(plan.folder / FOLDER)  # before anything is drawn
    try:
        for found in _each(plan, report):
            key = found.plan.render.key()
            values = write_explanation(found, make_folder(_folder(plan.folder, key)))
            pages[key], panels[key] = values["page"], _of(plan.folder, key, values)
            notes += found.notes
    finally:
        notes += add_panels(plan.folder / REPORT, panels) if panels else []
    return {
        "grid": str(plan.folder),
        "report": str(plan.folder / REPORT),
        "explained": len(plan.plans),
        "reused": len(plan.known),
        "pages": pages,
        "notes": list(dict.fromkeys(notes)),
    }


def _each(plan: CellsPlan, report: Report) -> Iterator[Explanation]:
    """The explanations, those of one base after another."""
    for places in grouped([one.render for one in plan.plans], loading).values():
        yield from explain_each([plan.plans[place] for place in places], stored=plan.stored, report=report)


def _chosen(grid: FinishedGrid, names: Sequence[str] | None) -> tuple[list[GridCell], list[str]]:
    """The distinct cells that are meant, and a note on those that cannot be."""
    if names is None:
        good = {cell.key: cell for cell in reversed(grid.cells) if _fault(cell) is None}
        left = sum(_fault(cell) is not None for cell in grid.cells)
        if not good:
            raise Refused(f"{one_line(grid.folder)} has no cell with an image that was drawn here.")
        notes = [f"Cells without an image, or with one that was made elsewhere, are left out: {left} of {len(grid.cells)}."] if left else []
        return [good[key] for key in dict.fromkeys(cell.key for cell in grid.cells) if key in good], notes
    found: dict[str, GridCell] = {}
    faults = []
    for name in names:
        try:
            for one in _numbers(grid, name):
                cell = _named(grid, one)
                found[cell.key] = cell
        except Refused as error:
            faults.append(str(error))
    if faults or not found:
        raise Faults("These are no cells to explain:", faults or ["none is given. Expected numbers or keys: --cells 1,5 or 1-3, or --all."])
    return list(found.values()), []


def _numbers(grid: FinishedGrid, name: str) -> list[str]:
    """The numbers of a range such as 1-3; any other name by itself."""
    if (match := RANGE.fullmatch(name)) is None:
        return [name]
    first, last = map(int, match.groups())
    if not 1 <= first <= last <= len(grid.cells):
        raise Refused(f"{name} is no range of the cells of {one_line(grid.folder)}: it has the cells 1 to {len(grid.cells)}.")
    return [str(number) for number in range(first, last + 1)]


def _named(grid: FinishedGrid, name: str) -> GridCell:
    """The cell of a number or of the first digits of a key."""
    if NUMBER.fullmatch(name):
        cells = grid.cells[int(name) - 1 : int(name)] if int(name) else ()
    elif PREFIX.fullmatch(name):
        cells = tuple({cell.key: cell for cell in grid.cells if cell.key.startswith(name)}.values())
    else:
        raise Refused(
            f"{one_line(name)} is neither a number nor a key. Expected --cells 1,5 or 1-3, or the first 8 or more digits of keys."
        )
    if len(cells) != 1:
        there = f"It has the cells 1 to {len(grid.cells)}; a cell's key stands in its settings in the report."
        many = f"{name} begins {len(cells)} keys: {some([cell.key for cell in cells])}."
        raise Refused(many if cells else f"There is no cell {name} in {one_line(grid.folder)}. {there}")
    if (fault := _fault(cells[0])) is not None:
        raise Refused(f"The cell {name} {fault}")
    return cells[0]


def _fault(cell: GridCell) -> str | None:
    """Why a cell cannot be explained, as the end of a sentence."""
    if cell.outside is not None:
        return "was made elsewhere: nothing is known of its way. An image with metadata is explained by itself: loraloom explain IMAGE."
    return "has no image: it failed, or is not drawn." if cell.image is None or not cell.image.is_file() else None


def _folder(folder: Path, key: str) -> Path:
    return folder / FOLDER / key[:16]


def _values(folder: Path, key: str) -> Mapping[str, Any] | None:
    """What explain.json of a cell says; None where there is none that can be read."""
    try:
        values = from_json((_folder(folder, key) / VALUES).read_bytes())
        return values if values["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_explained(folder: Path, key: str, against: Sequence[str], frames: int) -> bool:
    """Whether a cell was explained with these options."""
    values = _values(folder, key)
    if values is None:
        return False
    same = values.get("against") == list(dict.fromkeys(against)) and values.get("asked_frames") == frames
    return same and explained_panel(folder, key) is not None


def explained_panel(folder: Path, key: str, address: Callable[[str], str] = str) -> str | None:
    """The HTML of a cell that was explained before; None where a file of it is missing or of another version.

    `address` gives the address of an image from its path in the grid's folder.
    """
    from jinja2 import TemplateError

    values = _values(folder, key)
    try:
        return None if values is None else _of(folder, key, values, address)
    except (TemplateError, LookupError, TypeError, ValueError):
        return None


def _of(folder: Path, key: str, values: Mapping[str, Any], address: Callable[[str], str] = str) -> str:
    """The HTML of a cell, its images as the report finds them."""
    own = _folder(folder, key)
    files = {f"images/{path.name}": path for path in (own / "images").glob("*.png")}
    return panel(values, {name: address(f"{FOLDER}/{own.name}/{name}") for name in files})
