"""The images of a finished grid as scores see them, each with the one that it is held against.

That is the image of the same prompt, negative prompt and seed with the first value on every other axis; or, along one axis, the image with
its first value and all else equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from infer.draw.files import ImageFile
from infer.draw.input_images import InputImages
from infer.grid.cells import CellError, CellStore
from infer.prompt.dialect import PLAIN, pieces_of, read_prompt
from infer.score.dimensions import SETTING, dimensions
from infer.score.references import INIT
from infer.score.scorer import Subject
from infer.vote.finished import FinishedGrid, GridCell
from registry.errors import BadFile, LoomError
from registry.formats.image_file import Unreadable, decode

if TYPE_CHECKING:
    from PIL.Image import Image

HELD = 16  # decoded images in memory


@lru_cache(maxsize=HELD)
def _decoded(path: Path, _stamp: int) -> Image:
    try:
        return decode(path.read_bytes())[0]
    except (OSError, Unreadable) as error:
        raise BadFile(path, "unreadable", f"cannot be read as an image ({error}).") from error


def _image(path: Path) -> Image:
    return _decoded(path, path.stat().st_mtime_ns if path.is_file() else 0)


def pixels_sha256(image: Image) -> str:
    """A digest of size and pixels, whatever the file's format and metadata are."""
    return sha256(f"{image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


class Subjects:
    """A finished grid's cells with an image, by their number in the grid."""

    def __init__(self, grid: FinishedGrid, home: Path) -> None:
        self._grid = grid
        self._cells = CellStore(home / "cells")
        self._inputs = InputImages(home / "pictures")
        self._dimensions = dimensions([cell.values for cell in grid.cells if cell.outside is None])
        self._places = {_place(cell.values): number for number, cell in reversed([*enumerate(grid.cells)])}
        self._with_image = frozenset(self.numbers)
        self._made: dict[int, Subject] = {}

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The cells that have an image."""
        return tuple(number for number, cell in enumerate(self._grid.cells) if cell.image is not None and cell.image.is_file())

    def at(self, number: int) -> Subject:
        """One cell. Raises BadFile where its image cannot be read."""
        if number not in self._made:
            cell = self._grid.cells[number]
            assert cell.image is not None
            files = _input_files(cell)
            self._made[number] = Subject(
                key=cell.key,
                sha256=pixels_sha256(_image(cell.image)),
                image=partial(_image, cell.image),
                prompt=written_prompt(cell),
                seconds=self._seconds(cell),
                first=partial(self._first, number),
                files={name: str(file.sha256) for name, file in files.items()},
                inputs={name: partial(self._inputs.image, file) for name, file in files.items()},
            )
        return self._made[number]

    def _seconds(self, cell: GridCell) -> float | None:
        if cell.seconds is not None or cell.outside is not None:
            return cell.seconds
        try:
            stored = self._cells.get(cell.key)
        except CellError:
            return None
        return None if stored is None else stored.seconds

    def _first(self, number: int, axis: str | None) -> Subject | None:
        cell = self._grid.cells[number]
        if cell.outside is not None:
            return None
        wanted = dict(cell.values)
        for side in self._dimensions:
            if (axis is None and not set(side.axes) & set(SETTING)) or axis in side.axes:
                wanted |= dict(zip(side.axes, side.values[0], strict=True))
        other = self._places.get(_place(wanted))
        return self.at(other) if other is not None and other in self._with_image else None


def _place(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))


def _input_files(cell: GridCell) -> dict[str, ImageFile]:
    given = cell.render.get(INIT)
    if not isinstance(given, dict) or not isinstance(given.get("sha256"), str):
        return {}
    return {INIT: ImageFile(path=str(given.get("path")), sha256=given["sha256"])}


def written_prompt(cell: GridCell) -> str | None:
    """The prompt as a person typed it: before it was upsampled, its choices made, without weights and other marks of its dialect."""
    render = cell.render
    text = next((one for one in (render.get("typed_prompt"), render.get("prompt"), cell.prompt) if isinstance(one, str)), None)
    dialect = render.get("prompt_dialect", PLAIN)
    if text is None or dialect == PLAIN or not isinstance(dialect, str):
        return text
    try:
        parts = read_prompt(text, dialect, steps=int(render.get("steps") or 1))
        pieces = [[" " if piece.is_break else piece.text for piece in pieces_of(part.texts[-1].text, dialect)] for part in parts]
        return " ".join(" ".join("".join(texts) for texts in pieces).split())
    except (LoomError, ValueError, TypeError):
        return text  # marks that this version does not read: the text as it is
