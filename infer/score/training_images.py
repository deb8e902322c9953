"""The training images of a grid's adapters: those of the data sets that the index has as their parents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from infer.score.references import SUFFIXES
from infer.score.scorer import Scene
from registry.errors import LoomError, Refused
from registry.home import expanded
from registry.options import Meaning
from registry.printable import one_line, some

HELD_OUT = "heldout"  # a folder of a set whose images were not trained on

TrainingImages = Annotated[
    str | None,
    Meaning("a folder of training images, with its subfolders but heldout/; null: the data sets that the adapters were trained on"),
]


def training_files(scene: Scene, given: str | None) -> tuple[Path, ...]:
    """The image files, by their paths. Raises Refused where there are none."""
    folders = [expanded(given).absolute()] if given is not None else list(_sets(scene))
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise Refused(f"training images {one_line(folder)}: there is no such folder. Give data: FOLDER.")
        inner = (path for path in sorted(folder.rglob("*")) if HELD_OUT not in path.relative_to(folder).parts)
        found |= dict.fromkeys(path for path in inner if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise Refused(f"training images: there are none in {some(map(one_line, folders))} ({', '.join(SUFFIXES)}).")
    return tuple(found)


def _sets(scene: Scene) -> dict[Path, None]:
    """The folders of the data sets that the grid's adapters were trained on."""
    if not scene.adapters:
        raise Refused("training images: this grid has no adapter. Give data: FOLDER.")
    folders: dict[Path, None] = {}
    unknown = []
    for sha256 in scene.adapters:
        sets = _sets_of(scene, sha256)
        folders |= dict.fromkeys(sets)
        unknown += [] if sets else [sha256[:12]]
    if unknown:
        raise Refused(f"training images: the index has no data set that {some(unknown)} (sha256) were trained on. Give data: FOLDER.")
    return folders


def _sets_of(scene: Scene, sha256: str) -> list[Path]:
    if scene.store is None:
        return []
    try:
        parents = scene.store.find(f"sha256:{sha256}", fresh=False).parents
        sets = [scene.store.find(f"sha256:{one['sha256']}", kind="dataset", fresh=False) for one in parents if one.get("role") == "dataset"]
    except (LoomError, KeyError):
        return []
    return [Path(one.path) for one in sets if one.path]
