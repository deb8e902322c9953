"""The source images of a grid as sheet and report show them: what is redrawn, its masks, and the hints as the ControlNets get them.

A hint that is prepared stands behind the image that it is made of.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from infer.draw.files import file_name
from infer.draw.inputs import hint_image
from infer.draw.values import spell
from infer.hints.hints import reads_keypoints
from infer.output.command import absolute_options, place
from registry.printable import counted, shell_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from infer.draw.files import ControlNet
    from infer.draw.render import Render
    from infer.hints.hints import Hints

SIDE = 512  # pixels of the longer side: they are for the eye
MOST_LINES = 8  # hints that a plan lists for a person
MOST = 24  # more source images than this are in no sheet


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image that cells are drawn from: its name for people, and the image made small."""

    label: str
    png: bytes
    size: tuple[int, int]  # width, height in pixels of the small one


def source_images(renders: Sequence[Render], hints: Hints) -> tuple[list[SourceImage], list[str]]:
    """Each distinct source image of resolved Renders once, in their order, at most MOST; and a note on those left out."""
    makers = _makers(renders, hints)
    found = [_source(label, make()) for label, make in list(makers.values())[:MOST]]
    notes = [f"The sheet and the report show {MOST} of {counted(len(makers), 'source image')}."] if len(makers) > MOST else []
    return found, notes


def cell_sources(renders: Sequence[Render], hints: Hints) -> list[tuple[int, ...]]:
    """For each of these Renders the numbers of its images in what `source_images` gives of all of them."""
    makers = _makers(renders, hints)
    numbers = dict(zip(list(makers)[:MOST], range(MOST), strict=False))
    return [tuple(sorted({numbers[key] for key, _, _ in _needed(render, hints, makers) if key in numbers})) for render in renders]


Key = tuple[object, ...]
Make = Callable[[], "Image"]


def _makers(renders: Iterable[Render], hints: Hints) -> dict[Key, tuple[str, Make]]:
    """What is shown of the images of all Renders: its label, and what makes it."""
    makers: dict[Key, tuple[str, Make]] = {}
    for render in renders:
        for key, label, make in _needed(render, hints, makers):
            makers.setdefault(key, (label, make))
    return makers


def _needed(render: Render, hints: Hints, makers: Container[Key]) -> Iterator[tuple[Key, str, Make]]:
    """The images of one Render; an image whose hint is prepared is the one to redraw, where that is among the `makers`."""
    for name, file in (("init", render.init), ("mask", render.mask)):
        if file is not None:
            yield (name, file.sha256), f"{name} {file_name(file.path)}", partial(hints.images.image, file)
    for one in render.controls:
        if one.prepare and not reads_keypoints(one):
            redrawn = ("init", one.picture.sha256)
            shown = redrawn if redrawn in makers else ("photo", one.picture.sha256)
            yield shown, f"image {file_name(one.picture.path)}", partial(hints.images.image, one.picture)
        yield (one.reference, one.picture.sha256, one.prepare), _label(one), partial(hint_image, render, one, hints)


def prepared_hints(renders: Iterable[Render], hints: Hints) -> list[dict[str, Any]]:
    """Each distinct hint of resolved Renders that is prepared, as plain values: of what, how, its size, and its file where it is kept.

    `command` draws it alone.
    """
    rows: dict[Any, dict[str, Any]] = {}
    for render in renders:
        size = (render.width or 0, render.height or 0)
        for one in render.controls:
            what = (one.reference, one.picture, one.prepare, size, render.fit)
            if one.prepare is not None and what not in rows:
                kept = hints.path(one, size, render.fit, device=render.device)
                rows[what] = {
                    "net": one.reference,
                    "image": one.picture.path,
                    "prepare": one.prepare.name,
                    "options": {name: value for name, value in one.prepare.values().items() if name != "model"},
                    "model": dict(one.prepare.options).get("model"),
                    "model_sha256": one.prepare.sha256,
                    "size": list(size),
                    "fit": render.fit,
                    "file": str(kept) if kept is not None else None,
                    "command": _command(one, size, render.fit),
                }
    return list(rows.values())


def hint_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What `prepared_hints` gives as lines of a plan, and how to look at one."""
    lines = []
    for row in rows[:MOST_LINES]:
        options = "".join(f", {name} {spell(value) or 'null'}" for name, value in row["options"].items())
        by = f" by {file_name(row['model'])}" if row["model"] else ""
        wide, high = row["size"]
        lines.append(f"  hint for {row['net']}: {row['prepare']}{by} of {file_name(row['image'])} at {wide}x{high}{options}")
    lines += [f"  and {counted(len(rows) - MOST_LINES, 'more prepared hint')} (all of them: --json)"] if len(rows) > MOST_LINES else []
    return [*lines, f"  to look at it: {rows[0]['command']}"] if rows else []


def _command(one: ControlNet, size: tuple[int, int], fit: str | None) -> str:
    assert one.prepare is not None
    words = ["loraloom", "hint", place(one.picture.path), "--prepare", one.prepare.name, "--size", f"{size[0]}x{size[1]}"]
    words += ["--fit", fit] if fit is not None else []
    for name, value in absolute_options(one.prepare):
        words += ["--option", f"{name}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"]
    return shell_line(*words, "--output", "hint.png")


def _label(one: ControlNet) -> str:
    made = f"{one.prepare} of " if one.prepare else ""
    return f"hint for {one.reference}: {made}{file_name(one.picture.path)}"


def _source(label: str, image: Image) -> SourceImage:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    whole = io.BytesIO()
    small.save(whole, "PNG")
    return SourceImage(label=label, png=whole.getvalue(), size=small.size)
