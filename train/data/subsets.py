"""The sets that make up a training set: those of data.sets, or kohya's folders named REPEATS_WORD in data.path."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from registry.home import expanded
from registry.printable import counted
from train.data.images import holds_images, is_image, unread_reason
from train.data.metadata import METADATA
from train.data.wording import names_of
from train.masks.files import SOURCES
from train.settings.data import DataConfig
from train.settings.sets import MOST, Subset, subsets

KOHYA = re.compile(r"(?P<repeats>\d+)_(?P<word>.*)")  # sd-scripts: the word is its class token
HELDOUT = "heldout"
PRIOR = "data.prior"  # the name of the set of class images


@dataclass
class Subsets:
    """What there is to read, and what was found about the folders."""

    sets: list[Subset]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def subsets_of(config: DataConfig, path: str | None) -> Subsets:
    """The sets at `path`, those of data.sets where it is None."""
    if path is None:
        return Subsets(subsets(config.sets))
    folder = expanded(path)
    inner = _kohya_folders(folder) if os.path.isdir(folder) else []
    return _kohya_sets(folder, inner) if inner else Subsets([Subset(path=path)])


def with_prior(found: Subsets, config: DataConfig) -> Subsets:
    """The sets that are trained on: data.prior behind them, and data.prior_weight in the weight of every regularisation set."""
    sets, faults, notes = list(found.sets), list(found.faults), list(found.notes)
    if config.prior is not None:
        inner = subsets_of(config, config.prior)
        faults += [f"{PRIOR}: {fault}" for fault in inner.faults]
        notes += [f"{PRIOR}: {note}" for note in inner.notes]
        sets += [_of_prior(one, config) for one in inner.sets]
    return Subsets([replace(one, weight=one.weight * config.prior_weight) if one.prior else one for one in sets], faults, notes)


def _of_prior(one: Subset, config: DataConfig) -> Subset:
    name = f"{PRIOR}/{one.name}" if one.name else PRIOR
    masks = None if config.masks in SOURCES else "files"  # the names in a folder of masks are those of the images to learn
    return replace(one, name=name, prior=True, word=one.word or config.prior_prompt, masks=masks)


def heldout_of(subset: Subset) -> Subset | None:
    """The set's own held-out images: its folder heldout/, if it is there."""
    beside = expanded(subset.path) / HELDOUT
    if subset.prior or not holds_images(beside):
        return None
    return replace(subset, path=str(beside), name=f"{subset.prefix}{HELDOUT}" if subset.name else "", repeats=1, weight=1.0)


def heldout_sets(path: str, sets: Sequence[Subset]) -> list[Subset]:
    """The heldout/ of the set at `path`, and that of each of the sets it is made of."""
    whole = [] if any(subset.path == path for subset in sets) else [Subset(path=path)]
    return [held for subset in (*whole, *sets) if (held := heldout_of(subset))]


def place_of(config: DataConfig) -> str:
    """The whole training set in one text: data.path, or the paths of data.sets."""
    return str(config.path) if config.sets is None else " + ".join(str(entry["path"]) for entry in config.sets)


def _kohya_folders(folder: Path) -> list[Path]:
    """The subfolders of a folder of kohya's folders; none where it has images or a metadata file of its own."""
    with os.scandir(folder) as there:  # a large folder of images is not sorted for this
        if not any(KOHYA.fullmatch(entry.name) and entry.is_dir() for entry in there):
            return []
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    own = [entry for entry in entries if is_image(entry) or unread_reason(entry) or entry.name.lower() in METADATA]
    inner = [entry for entry in entries if entry.is_dir() and entry.name != HELDOUT]
    return inner if not own and any(KOHYA.fullmatch(entry.name) and _has_images(entry) for entry in inner) else []


def _kohya_sets(folder: Path, inner: list[Path]) -> Subsets:
    found = Subsets([])
    others = []
    for entry in inner:
        name = KOHYA.fullmatch(entry.name)
        if name is None:
            others += [entry] if _has_images(entry) else []
            continue
        repeats = int(name["repeats"]) if len(name["repeats"]) < 10 else MOST + 1
        if not 1 <= repeats <= MOST:
            found.faults.append(f"{entry.name}/: the number in front is how often an epoch has its images, and must be 1 to {MOST}")
        word = name["word"].strip()
        found.sets.append(Subset(path=str(entry), name=entry.name, repeats=max(1, min(repeats, MOST)), word=word or None))
    if others:
        found.faults.append(
            f"{names_of(others)}: images beside folders with repeats, in a folder without a number; name it 1_{others[0].name},"
            " or move it away"
        )
    text = ", ".join(f"{subset.name}/ {subset.repeats}" for subset in found.sets)
    found.notes.append(f"read as {counted(len(found.sets), 'set')} with repeats, as sd-scripts names folders: {text}")
    return found


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and holds_images(folder)
