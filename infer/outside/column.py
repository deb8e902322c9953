"""Outside folders as columns: one value more on a side of the grid for each, and a cell for each image."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infer.draw.files import ImageFile
from infer.draw.input_images import InputImages, same_shape
from infer.grid.layout import Cell, Dimension, Layout, choose_sides
from infer.outside.folder import read_folder
from infer.outside.match import Match, match
from registry.errors import LoomError, Refused
from registry.home import expanded
from registry.printable import counted, one_line, some

ASKED = ("prompt", "replace", "seed")  # the axes that an outside image has a value of
NAME = re.compile(r"[^\W_][^\x00-\x1f/\\:+@=]{0,39}")
MOST = 20  # columns


@dataclass(frozen=True, kw_only=True)
class OutsideCell:
    """An image of a folder in the grid, or that there is none (`match` None). `box`: the pixels of the drawn cells of its prompt."""

    name: str
    column: str  # the axis whose place it takes
    place: tuple[int, ...]
    values: Mapping[str, Any]  # of the axes that it has, and its name as the column's
    prompt: str
    match: Match | None
    size: tuple[int, int] = (0, 0)
    box: tuple[int, int] = (0, 0)

    @property
    def key(self) -> str:
        """The content of its file: the same image elsewhere is the same cell."""
        return f"outside-{self.match.image.sha256}" if self.match else f"outside-none-{'-'.join(map(str, self.place))}"


def read_outside(given: object) -> list[tuple[str, str]]:
    """(name, path) of each folder of `outside`. Raises Refused."""
    found = []
    for one in given if isinstance(given, Sequence) and not isinstance(given, str) else [] if given is None else [given]:
        if isinstance(one, str):
            one = {"path": one}
        if (
            not isinstance(one, Mapping)
            or not {"path"} <= one.keys() <= {"name", "path"}
            or not all(isinstance(v, str) for v in one.values())
        ):
            raise Refused(f"outside holds {one!r}. Expected folders: FOLDER, or {{name: dalle3, path: FOLDER}}, several in a list.")
        found.append((one.get("name") or expanded(one["path"]).absolute().name, one["path"]))
    names = [name for name, _ in found]
    if bad := [name for name in names if not NAME.fullmatch(name) or one_line(name) != name or name.lower() == "none"]:
        raise Refused(
            f"outside: {one_line(bad[0])!r} names no column. Give {{name: dalle3, path: FOLDER}}: letters first, 40 characters at most."
        )
    if len(set(map(str.casefold, names))) < len(names) or len(names) > MOST:
        raise Refused(f"outside: {some(names, 8)}: expected at most {MOST} folders, each under a name of its own.")
    return found


def with_columns(
    given: object, layout: Layout, cells: Sequence[Cell], base: str, images: InputImages, gather: Callable[[str], None]
) -> tuple[Layout, list[Cell], list[OutsideCell], list[str]]:
    """The layout with a column for each outside folder, the drawn cells in it, the outside cells, and notes. Faults go to `gather`."""
    try:
        folders = read_outside(given)
    except Refused as error:
        gather(str(error))
        return layout, list(cells), [], []
    if not folders or not cells:
        return layout, list(cells), [], []
    layout, drawn = _sided(layout, cells, base)
    side = _column(layout)
    axis = layout.dimensions[side].axes[0]
    outside: list[OutsideCell] = []
    notes: list[str] = []
    for name, path in folders:
        if name in layout.dimensions[side].labels:
            gather(f"outside {name}: {axis} has a value of that name. Give another: {{name: ..., path: ...}}.")
        made, said = _one(name, path, layout, side, drawn, images, gather)
        outside += made
        notes += said
        layout = _extended(layout, side, name)
    return layout, drawn, outside, notes


def _sided(layout: Layout, cells: Sequence[Cell], base: str) -> tuple[Layout, list[Cell]]:
    """The grid with a side that columns can be added to: the base's, where only prompts and seeds are varied."""
    if any(not set(one.axes) & set(ASKED) for one in layout.dimensions):
        return layout, list(cells)
    added = Dimension(axes=("base",), values=((base,),), labels=(base,))
    place = len(layout.dimensions)
    made = choose_sides((*layout.dimensions, added), layout.rows, None if layout.columns is None and place > 1 else place)
    moved = [replace(cell, place=(*cell.place, 0), values={**cell.values, "base": base}) for cell in cells]
    return made, moved


def _column(layout: Layout) -> int:
    """The side that gets the columns: the one across, else the finest comparison."""
    free = [index for index, one in enumerate(layout.dimensions) if not set(one.axes) & set(ASKED)]
    return layout.columns if layout.columns in free else max(free, key=lambda index: layout.dimensions[index].across)


def _extended(layout: Layout, side: int, name: str) -> Layout:
    dimensions = list(layout.dimensions)
    one = dimensions[side]
    dimensions[side] = replace(one, values=(*one.values, (name,) * len(one.axes)), labels=(*one.labels, name))
    return replace(layout, dimensions=tuple(dimensions))


def _one(
    name: str, path: str, layout: Layout, side: int, cells: Sequence[Cell], images: InputImages, gather: Callable[[str], None]
) -> tuple[list[OutsideCell], list[str]]:
    folder = read_folder(name, path, gather)
    if folder is None:
        return [], []
    prompts = list(dict.fromkeys(map(_typed, cells)))
    seeds = [list(dict.fromkeys(cell.render.seed for cell in cells if _typed(cell) == prompt)) for prompt in prompts]
    found = match(folder, prompts, seeds, gather)
    sizes = _sizes(found.matches, name, images, gather)
    by_place = {(one.prompt, one.seed): one for one in found.matches}
    made: dict[tuple[int, ...], OutsideCell] = {}
    new, axis = len(layout.dimensions[side]), layout.dimensions[side].axes[0]
    for cell in cells:
        place = tuple(new if index == side else at for index, at in enumerate(cell.place))
        if place in made:
            continue
        prompt = prompts.index(_typed(cell))
        one = by_place.get((prompt, seeds[prompt].index(cell.render.seed)))
        made[place] = OutsideCell(
            name=name,
            column=axis,
            place=place,
            values={key: value for key, value in cell.values.items() if key in ASKED} | {axis: name},
            prompt=_typed(cell),
            match=one,
            size=sizes.get(one.image.sha256, (0, 0)) if one else (0, 0),
            box=cell.render.final_size,
        )
    return list(made.values()), [*found.notes, *_shapes(name, list(made.values()))]


def _typed(cell: Cell) -> str:
    """The prompt as a person typed it, which was given to the other tool too."""
    return cell.render.prompt if cell.render.typed_prompt is None else cell.render.typed_prompt


def outside_counts(cells: Sequence[OutsideCell]) -> list[dict[str, Any]]:
    """Of each outside folder: its column's name, its cells, and how many of them have an image."""
    names = dict.fromkeys(one.name for one in cells)
    counts = {name: [one.match is not None for one in cells if one.name == name] for name in names}
    return [{"name": name, "cells": len(there), "images": sum(there)} for name, there in counts.items()]


def _sizes(matches: Sequence[Match], name: str, images: InputImages, gather: Callable[[str], None]) -> dict[str, tuple[int, int]]:
    """Size in pixels of each image by its content, decoded: what cannot be shown is a fault now."""
    found = {}
    for one in matches:
        try:
            found[one.image.sha256] = images.read(ImageFile(path=str(one.image.path), sha256=one.image.sha256)).size
        except LoomError as error:
            gather(f"outside {one_line(name)}: {one_line(error)}")
    return found


def _shapes(name: str, cells: Sequence[OutsideCell]) -> list[str]:
    """What of the images a blind vote cannot show."""
    cut = list(
        dict.fromkeys(one.match.image.path.name for one in cells if one.match and all(one.size) and not same_shape(one.size, one.box))
    )
    if not cut:
        return []
    names = some(map(one_line, cut))
    return [
        f"outside {name}: {counted(len(cut), 'image has', 'images have')} another shape than the "
        f"drawn ones ({names}); votes show their middle alone."
    ]
