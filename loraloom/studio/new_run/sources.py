"""What a run can begin with: registered bases that are trained, folders with images below the roots, registered sets."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loraloom.studio.runs.folders import OUT
from registry.index.catalogue.selection import Selection
from train.data.images import is_image

if TYPE_CHECKING:
    from loraloom.studio.context import Studio
    from registry.record import Record

SECONDS = 10.0  # after which index and folders are looked at again
DEEPEST = 4  # folders below a root
MOST_FOLDERS = 5000  # that are looked into, so that a root such as / ends
MOST_SHOWN = 200
MOST_RECORDS = 500  # of a kind that are composed
PASSED = (OUT, "grids", "checkpoints", "samples", "node_modules", "__pycache__")  # folders without sets to train on


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something to choose: `given` is the setting's value, `about` what it is."""

    given: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Sources:
    """All of them; `cut`: there were more folders than are looked into."""

    bases: tuple[Source, ...]
    data: tuple[Source, ...]
    cut: bool = False


_lock = threading.Lock()
_known: dict[tuple[Path, tuple[Path, ...]], tuple[float, Sources]] = {}


def sources(studio: Studio) -> Sources:
    """What is there, at most SECONDS old."""
    key = (studio.home, tuple(studio.roots))
    with _lock:
        known = _known.get(key)
        if known is None or time.monotonic() - known[0] > SECONDS:
            known = _known[key] = time.monotonic(), _found(studio)
        return known[1]


def _found(studio: Studio) -> Sources:
    folders, cut = _folders(studio.roots)
    sets = {one.given: one for one in _registered_sets(studio)}
    for path, images in folders:
        given = str(path.relative_to(studio.folder)) if path.is_relative_to(studio.folder) else str(path)
        sets.setdefault(str(path), Source(given=given, about=f"{images} images"))
    return Sources(bases=tuple(_bases(studio)), data=tuple(sets.values()), cut=cut)


def matching(found: Sequence[Source], text: str) -> list[Source]:
    """Those with every word in them, ignoring case, at most MOST_SHOWN."""
    words = text.casefold().split()
    return [one for one in found if all(word in f"{one.given} {one.about}".casefold() for word in words)][:MOST_SHOWN]


def _bases(studio: Studio) -> Iterator[Source]:
    """The checkpoints that are here and whose family is trained, of the newest."""
    from registry.families import FAMILIES

    for record in _newest(studio, "checkpoint"):
        family = FAMILIES[record.family] if record.family is not None and record.family in FAMILIES else None
        if family is not None and family.untrained is None and record.path and os.path.exists(record.path):
            yield Source(given=record.name, about=family.title)


def _newest(studio: Studio, kind: str) -> list[Record]:
    """The newest records of a kind, MOST_RECORDS at most: others are given by their names."""
    with studio.store.browse(Selection(kind=kind), sort="newest") as found:
        return list(found.part(0, MOST_RECORDS))


def _registered_sets(studio: Studio) -> Iterator[Source]:
    """The registered sets whose folders are here, by their paths: data.path takes a folder."""
    for record in _newest(studio, "dataset"):
        if record.path and os.path.isdir(record.path):
            pictures = record.metadata.get("pictures")
            yield Source(given=record.path, about=f"{record.name}, {pictures} images" if isinstance(pictures, int) else record.name)


def _folders(roots: Sequence[Path]) -> tuple[list[tuple[Path, int]], bool]:
    """(folders with images and how many, whether there were too many to look into)."""
    found: list[tuple[Path, int]] = []
    waiting = [(root, 0) for root in reversed(roots)]
    looked: set[Path] = set()
    while waiting:
        folder, depth = waiting.pop()
        if folder in looked:
            continue
        if len(looked) >= MOST_FOLDERS:
            return found, True
        looked.add(folder)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        images = sum(1 for entry in entries if is_image(Path(entry.name)) and not entry.name.startswith("."))
        if images and folder.name not in ("heldout", "masks"):
            found.append((folder, images))
        inside = [entry for entry in reversed(entries) if not entry.name.startswith(".") and entry.name not in PASSED]
        if depth < DEEPEST:
            waiting += [(Path(entry.path), depth + 1) for entry in inside if entry.is_dir(follow_symlinks=False)]
    return found, False
