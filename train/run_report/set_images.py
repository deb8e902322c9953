"""The images of a run found again on the disk, by the names and hashes that the run recorded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.formats.image_file import Unreadable, decode
from registry.home import expanded
from registry.printable import some
from registry.progress import Report, Tick, silent
from train.config import TrainConfig
from train.data.subsets import heldout_sets, place_of, subsets_of
from train.settings.sets import Subset

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 1000  # images that are read; of a larger set so many, evenly
Files = Sequence[Mapping[str, Any]]  # rows of inputs.json
KEPT = 512  # pixels of the long side that are kept of an image


@dataclass(frozen=True)
class SetImage:
    """An image of a run's set as it was trained on, at most KEPT pixels a side."""

    name: str
    prompt: str
    sha256: str
    image: Image


def training_images(config: TrainConfig, files: Files, *, report: Report = silent) -> tuple[list[SetImage], list[str]]:
    """The training images that are still there, and a line on those that are not."""
    subsets = subsets_of(config.data, config.data.path).sets if _has_set(config) else []
    return _read(files, list(_folders(subsets)), "training images", report)


def heldout_images(config: TrainConfig, files: Files, *, report: Report = silent) -> tuple[list[SetImage], list[str]]:
    """The held-out images that are still there, and a line on those that are not."""
    subsets = subsets_of(config.data, config.data.path).sets if _has_set(config) else []
    given = config.heldout.path
    held = subsets_of(config.data, given).sets if given else heldout_sets(place_of(config.data), subsets) if subsets else []
    return _read(files, list(_folders([*held, *subsets])), "held-out images", report)


def _has_set(config: TrainConfig) -> bool:
    return config.data.path is not None or config.data.sets is not None


def _folders(subsets: Sequence[Subset]) -> Iterator[tuple[str, Path]]:
    """(what names begin with, folder) of the sets that are folders of this machine."""
    for subset in subsets:
        folder = expanded(subset.path)
        if os.path.isdir(folder):
            yield subset.prefix, folder


def _read(files: Files, folders: Sequence[tuple[str, Path]], what: str, report: Report) -> tuple[list[SetImage], list[str]]:
    chosen = files if len(files) <= MOST else [files[place * len(files) // MOST] for place in range(MOST)]
    found: list[SetImage] = []
    gone: list[str] = []
    for done, file in enumerate(chosen, 1):
        image = _one(file, folders)
        if image is None:
            gone.append(str(file["file"]))
        else:
            found.append(image)
        report(Tick(f"read {what}", done, len(chosen)))
    notes = [f"{len(chosen)} of the {len(files)} {what} are looked at, evenly over the set"] if len(chosen) < len(files) else []
    if gone:
        notes.append(f"{len(gone)} of {len(chosen)} {what} are no longer where they were, or have changed: {some(gone)}")
    return found, notes


def _one(file: Mapping[str, Any], folders: Sequence[tuple[str, Path]]) -> SetImage | None:
    """The image, where a folder has a file of its name and content."""
    name = str(file["file"])
    for prefix, folder in folders:
        path = folder / name.removeprefix(prefix)
        if not name.startswith(prefix) or not path.resolve().is_relative_to(folder.resolve()):
            continue
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != file["sha256"]:
                continue
            image = decode(data)[0]
        except (OSError, ValueError, Unreadable):
            continue
        image.thumbnail((KEPT, KEPT))
        return SetImage(name, str(file["prompt"]), str(file["sha256"]), image)
    return None
