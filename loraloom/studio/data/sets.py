"""The sets below the roots of a Studio, and the registered ones: folders with images, counted by the names of their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from loraloom.studio.context import Studio
from registry.errors import LoomError
from train.data.images import is_image
from train.data.metadata import METADATA
from train.data.sidecars import SIDECARS
from train.data.subsets import HELDOUT
from train.masks.files import FOLDER as MASKS
from train.masks.files import NAMED

DEEPEST = 5  # folders below a root
MOST_FOLDERS = 4000  # that are looked into below one root
OUTPUTS = {"cells.jsonl", "metrics.jsonl", "progress.json", "adapter_config.json"}  # of runs and grids, whose images are no sets
APART = {HELDOUT, MASKS, "node_modules", "site-packages", "__pycache__"}


@dataclass(frozen=True)
class Counts:
    """A folder of images in numbers, by names alone. `first` are some of its images."""

    images: int
    captions: int
    heldout: int
    masks: int
    table: str | None  # metadata.jsonl, .csv or .parquet, which has the captions
    first: tuple[str, ...]


@dataclass(frozen=True)
class SetCard:
    """A set in the list."""

    path: Path
    name: str
    counts: Counts
    registered: str | None = None
    changed: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        counts = vars(self.counts) | {"first": [str(self.path / name) for name in self.counts.first]}
        return {"path": str(self.path), "name": self.name, "registered": self.registered, "changed": self.changed, **counts}


def list_sets(studio: Studio) -> tuple[list[SetCard], bool]:
    """The sets by name, and whether there were more folders than are looked into."""
    registered = _registered(studio)
    found: dict[Path, SetCard] = {}
    is_cut = False
    for root in dict.fromkeys(Path(root).resolve() for root in studio.roots):
        for number, folder in enumerate(_folders(root, studio.home.resolve())):
            if number >= MOST_FOLDERS:
                is_cut = True
                break
            if folder not in found and (card := _card(folder, _shown(folder, studio.folder.resolve()), registered)):
                found[folder] = card
    for path in registered.keys() - found.keys():
        if path.is_dir() and (card := _card(path, str(path), registered)):
            found[path] = card
    return sorted(found.values(), key=lambda card: card.name.casefold()), is_cut


def _shown(folder: Path, working: Path) -> str:
    return str(folder.relative_to(working)) if folder.is_relative_to(working) else str(folder)


def _registered(studio: Studio) -> dict[Path, str]:
    try:
        records = studio.store.records(kind="dataset")
    except LoomError:  # an index that cannot be read is another section's message
        return {}
    return {Path(record.path).resolve(): record.name for record in records if record.path}


def _card(folder: Path, name: str, registered: dict[Path, str]) -> SetCard | None:
    try:
        changed = folder.stat().st_mtime_ns
        inside = [(folder / inner).stat().st_mtime_ns if (folder / inner).is_dir() else 0 for inner in (HELDOUT, MASKS)]
        counts = _counts(folder, changed, *inside)
    except OSError:
        return None
    return SetCard(folder, name, counts, registered.get(folder), changed / 1e9) if counts else None


def _folders(root: Path, home: Path) -> Iterator[Path]:
    """The folders at and below a root that may be sets, the nearest first; hidden ones, links, runs, grids and the home are left out."""
    level = [root]
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    inside = list(entries)
            except OSError:
                continue
            if any(entry.name in OUTPUTS for entry in inside):
                continue
            yield folder
            names = [one.name for one in inside if _may_hold(one)]
            below += [folder / name for name in sorted(names) if folder / name != home]
        level = below


def _may_hold(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name not in APART and entry.is_dir(follow_symlinks=False)


@lru_cache(maxsize=8192)
def _counts(folder: Path, _changed: int, _heldout: int, _masks: int) -> Counts | None:
    """The counts of a folder as it was changed last; None where it holds no images."""
    names = _names(folder)
    images, masks = _apart(names)
    held = _names(folder / HELDOUT)
    held_images, held_masks = _apart(held)
    if not images and not held_images:
        return None
    table = next((name for name in names if name.lower() in METADATA), None)
    stems = {PurePath(name).stem for name in (*names, *held) if PurePath(name).suffix.lower() in SIDECARS}
    every = (*images, *held_images)
    captions = len(every) if table else sum(name in stems or PurePath(name).stem in stems for name in every)
    in_folder = sum(is_image(PurePath(name)) for name in _names(folder / MASKS))
    return Counts(len(every), captions, len(held_images), len(masks) + len(held_masks) + in_folder, table, tuple(images[:4]))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _apart(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(images, masks of them beside)."""
    images = [name for name in names if is_image(PurePath(name))]
    stems = {PurePath(name).stem for name in images}
    masks = {name for name in images if (found := NAMED.fullmatch(PurePath(name).stem)) and found["image"] in stems}
    return [name for name in images if name not in masks], sorted(masks)
