"""The images of a choice as a grid that can be voted on: found where they were drawn before, else drawn."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infer.grid.job import draw_plan
from infer.vote.finished import FinishedGrid, GridCell, read_grid
from infer.vote.votes import NAME, VotesFile, read_votes
from registry.errors import Faults, JobFailed, LoomError
from registry.progress import Report, silent
from train.choosing.choice import Choice

if TYPE_CHECKING:
    from registry.store import Store

AXIS = "candidate"


def drawn_grid(choice: Choice, store: Store, *, report: Report = silent) -> FinishedGrid:
    """The grid of the choice, its candidates by name. What was drawn is not drawn again, and votes on the same images are kept.

    Raises JobFailed where an image cannot be drawn.
    """
    if (found := found_grid(choice)) is not None:
        return found
    earlier = _earlier(choice)
    config = copy(choice.grid.config)
    config.name = choice.folder.name
    outcome = draw_plan(replace(choice.grid, config=config), store, report=report)
    drawn = _whole(choice, outcome.folder)
    if drawn is None:
        raise JobFailed(f"Not every image could be drawn: {outcome.result['failed']} failed. {outcome.folder} has the reasons.")
    for folder in earlier:  # of a grid that has lost images since
        VotesFile(outcome.folder).add(read_votes(folder / NAME).votes)
    return drawn


def found_grid(choice: Choice) -> FinishedGrid | None:
    """The grid of the choice where every image of it is drawn; None where it is not."""
    return next((found for folder in _earlier(choice) if (found := _whole(choice, folder)) is not None), None)


def _earlier(choice: Choice) -> list[Path]:
    """The folders of grids of these images, the last one first."""
    return sorted((entry for entry in choice.folder.iterdir() if entry.is_dir()), reverse=True) if choice.folder.is_dir() else []


def _whole(choice: Choice, folder: Path) -> FinishedGrid | None:
    """The grid in a folder with every image of the choice; None where one is not there."""
    try:
        images = {cell.key: cell.image for cell in read_grid(folder).cells if cell.image is not None and cell.image.is_file()}
    except (LoomError, Faults):
        return None  # a kill came before its first cell
    dimensions = [one.name for one in choice.grid.layout.dimensions]
    adapter = dimensions.index("adapter")
    cells = []
    for cell in choice.grid.cells:
        key = cell.render.key()
        if key not in images:
            return None
        values = {"prompt": cell.render.prompt, "seed": str(cell.render.seed), AXIS: choice.label(cell.place[adapter])}
        render = cell.render.to_json()
        cells.append(GridCell(key=key, image=images[key], values=values, prompt=cell.render.prompt, render=render))
    return FinishedGrid(folder=folder, cells=tuple(cells), axes=("prompt", "seed", AXIS))
