"""Which images of finished grids were drawn with which models, by the hashes in their cells."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from time import monotonic
from typing import Any

from registry.plain_values import from_json

CELLS = "cells.jsonl"
PLACES = ("runs/*/*/cells.jsonl", "runs/*/*/*/cells.jsonl")  # below a root: grids, and those of a sweep
LARGEST = 1 << 27  # bytes of a cells.jsonl that is read
MOST = 60  # images of a model that are kept of one grid
REST = 3.0  # seconds in which folders are not looked through again


@dataclass(frozen=True)
class GridImage:
    """An image of a finished grid, and what was varied in it."""

    path: Path
    folder: Path
    label: str


@dataclass(frozen=True)
class _Read:
    signature: tuple[int, int]
    images: Mapping[str, tuple[GridImage, ...]]  # by sha256


@dataclass
class GridImages:
    """The images of all grids below some folders, by the sha256 of the models that they were drawn with. Each grid is read once."""

    roots: Sequence[Path]
    _grids: dict[Path, _Read] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked: float = -REST
    _reading: threading.Thread | None = None

    def of(self, sha256: str | None) -> list[GridImage]:
        """The images that were drawn with this model, those of the last grid first, of the grids that are read by now."""
        if sha256 is None:
            return []
        grids = sorted(self._grids.items(), key=lambda pair: -pair[1].signature[0])
        return [image for _, read in grids for image in read.images.get(sha256, ())]

    def refresh(self, *, wait: float = 0.0) -> bool:
        """Read grids that are new or have changed, in a thread of its own; gives whether all are read now. `wait`: seconds at most."""
        with self._lock:
            if self._reading is None or not self._reading.is_alive():
                if monotonic() - self._looked < REST:
                    return True
                self._reading = threading.Thread(target=self._read_all, name="studio-grids", daemon=True)
                self._reading.start()
            reading = self._reading
        reading.join(wait)
        return not reading.is_alive()

    def _read_all(self) -> None:
        found = {path for root in self.roots for place in PLACES for path in root.glob(place)}
        for path in self._grids.keys() - found:
            self._grids.pop(path, None)
        for path in sorted(found):
            try:
                stat = path.stat()
                signature = (stat.st_mtime_ns, stat.st_size)
                if (
                    S_ISREG(stat.st_mode)
                    and stat.st_size <= LARGEST
                    and (path not in self._grids or self._grids[path].signature != signature)
                ):
                    self._grids[path] = _Read(signature, _images(path))
            except OSError:
                self._grids.pop(path, None)
        self._looked = monotonic()


def _images(cells: Path) -> dict[str, tuple[GridImage, ...]]:
    """Model's sha256 -> images, of the lines that are cells; what cannot be read as one is of no model."""
    found: dict[str, list[GridImage]] = {}
    for line in cells.read_bytes().splitlines():
        try:
            cell = from_json(line)
            image, render, axes = cell["image"], cell["render"], cell["axes"]
            label = ", ".join(f"{name} {value}" for name, value in axes.items()) or str(render["prompt"] or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if not isinstance(image, str) or not image or Path(image).is_absolute() or ".." in Path(image).parts:
            continue
        one = GridImage(cells.parent / image, cells.parent, label)
        for digest in dict.fromkeys(hashes_in(render)):
            if len(images := found.setdefault(digest, [])) < MOST:
                images.append(one)
    return {digest: tuple(images) for digest, images in found.items()}


def hashes_in(render: Any) -> Iterator[str]:
    """The sha256 of every model that a Render's JSON names."""
    if isinstance(render, dict):
        for name, value in render.items():
            if isinstance(value, str) and (name == "sha256" or name.endswith("_sha256")):
                yield value
            elif isinstance(value, dict | list):
                yield from hashes_in(value)
    elif isinstance(render, list):
        for one in render:
            yield from hashes_in(one)
