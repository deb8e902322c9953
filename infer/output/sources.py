"""The source images of a grid as sheet and report show them: what is redrawn, its masks, and the hints as the ControlNets get them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from infer.draw.files import file_name
from infer.draw.inputs import hint_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from infer.draw.input_images import InputImages
    from infer.draw.render import Render

SIDE = 512  # pixels of the longer side: they are for the eye
MOST = 24  # more source images than this are in no sheet


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image that cells are drawn from: its name for people, and the image made small."""

    label: str
    png: bytes
    size: tuple[int, int]  # width, height in pixels of the small one


def source_images(renders: Sequence[Render], images: InputImages) -> tuple[list[SourceImage], list[str]]:
    """Each distinct source image of resolved Renders once, in their order, at most MOST; and a note on those left out."""
    makers: dict[tuple[object, ...], tuple[str, Callable[[], Image]]] = {}
    for render in renders:
        for name, file in (("init", render.init), ("mask", render.mask)):
            if file is not None:
                makers.setdefault((name, file.sha256), (f"{name} {file_name(file.path)}", partial(images.image, file)))
        for one in render.controls:
            made = f"{one.prepare} of " if one.prepare else ""
            label = f"hint for {one.reference}: {made}{file_name(one.picture.path)}"
            key = (one.reference, one.picture.sha256, one.prepare)
            makers.setdefault(key, (label, partial(hint_image, render, one, images)))
    found = [_source(label, make()) for label, make in list(makers.values())[:MOST]]
    notes = [f"The sheet and the report show {MOST} of {len(makers)} source images."] if len(makers) > MOST else []
    return found, notes


def _source(label: str, image: Image) -> SourceImage:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    whole = io.BytesIO()
    small.save(whole, "PNG")
    return SourceImage(label=label, png=whole.getvalue(), size=small.size)
