"""The images of a model: the one a person chose, those beside its file, those of the run that made it, those of grids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from loraloom.studio.context import Studio
from loraloom.studio.models.grid_images import GridImages
from loraloom.studio.places import MEDIA
from registry.detect.sidecars import PREVIEWS
from registry.errors import NotFound, Refused
from registry.record import Record
from train.run_report.read import preview_files

Source = Literal["chosen", "beside", "run", "grid", "data", "card"]
MOST = 120  # images of a model's page
OF_A_SET = 12  # of a data set, of which the section Data shows all


@dataclass(frozen=True)
class ModelImage:
    """One image of a model. `folder` is the run or grid that it is of."""

    path: Path
    source: Source
    label: str
    folder: Path | None = None

    @property
    def version(self) -> str:
        """Another one when the file changes."""
        stat = self.path.stat()
        return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"

    def to_json(self) -> dict[str, str | None]:
        """Plain values for a page."""
        folder = None if self.folder is None else str(self.folder)
        return {"path": str(self.path), "source": self.source, "label": self.label, "folder": folder, "v": self.version}


def images_of(record: Record, grids: GridImages) -> Iterator[ModelImage]:
    """The images that are there, the one of its card first."""
    seen: set[Path] = set()
    for image in _images(record, grids):
        if image.path not in seen and image.path.suffix.lower() in MEDIA and image.path.is_file():
            seen.add(image.path)
            yield image


def card_image(record: Record, grids: GridImages) -> ModelImage | None:
    """The image of a model's card."""
    return next(images_of(record, grids), None)


def gallery(record: Record, grids: GridImages) -> list[ModelImage]:
    """The images of a model's page."""
    return list(islice(images_of(record, grids), MOST))


def servable(studio: Studio, record: Record, path: str | None, grids: GridImages) -> Path:
    """The image file to send: that of the card, or `path` where it is one of the model's own or may be read anyway. Raises NotFound."""
    if path is None:
        image = card_image(record, grids)
        if image is None:
            raise NotFound(f"There is no image of {record.name}.")
        return image.path
    own = (image.path for image in _own(record))
    if (given := Path(path)) in own and given.suffix.lower() in MEDIA and given.is_file():
        return given
    readable = studio.places.readable(path)
    if readable.suffix.lower() not in MEDIA or not readable.is_file():
        raise Refused(f"{readable.name}: this is no image that a page shows ({', '.join(MEDIA)}).")
    return readable


def _images(record: Record, grids: GridImages) -> Iterator[ModelImage]:
    yield from _own(record)
    yield from _of_run(record)
    for image in grids.of(record.hashes.sha256):
        yield ModelImage(image.path, "grid", image.label, image.folder)
    yield from _inside(record)


def _own(record: Record) -> Iterator[ModelImage]:
    """What a person chose, and what lies beside the file under its name, as other tools keep it."""
    if record.image is not None:
        yield ModelImage(Path(record.image), "chosen", "chosen")
    if record.path is None or record.metadata.get("root"):
        return
    place = Path(record.path)
    for ending in PREVIEWS:
        yield ModelImage(place.with_name(place.stem + ending), "beside", "beside its file")


def _of_run(record: Record) -> Iterator[ModelImage]:
    """The previews of the run that lies there, or that wrote the file: those of the last step first."""
    if record.path is None or record.kind not in ("run", "adapter", "embedding"):
        return
    folder = Path(record.path) if record.kind == "run" else Path(record.path).parent
    if not (folder / "samples").is_dir():
        return
    for (step, number), path in sorted(preview_files(folder).items(), key=lambda pair: (-pair[0][0], pair[0][1])):
        yield ModelImage(path, "run", f"step {step}, prompt {number}", folder)


def _inside(record: Record) -> Iterator[ModelImage]:
    """Of a data set's images the first ones; of a model's folder those of its card."""
    if not record.metadata.get("root"):
        return
    root = Path(str(record.path))
    folders = [root] if record.kind == "dataset" else [root, root / "card", root / "images"]
    for folder in folders:
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in MEDIA)
        except OSError:
            continue
        for name in names[:OF_A_SET]:
            yield ModelImage(folder / name, "data" if record.kind == "dataset" else "card", name)
