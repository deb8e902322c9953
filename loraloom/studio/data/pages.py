"""One set as it is now: its images filtered, its tags counted, a page of it."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from loraloom.studio.data.findings import FINDINGS
from loraloom.studio.data.sizes import crops_json, items_by_name, shape_of
from registry.errors import Refused
from train.config import DataConfig
from train.data.editing import journal
from train.data.editing.edit_plan import Choice
from train.data.editing.entries import EditableSet, Entry, TextFile, Unedited, read_entries
from train.data.editing.operations import tags_of
from train.data.items import Sizes, images_by_bucket
from train.data.subsets import HELDOUT
from train.masks.files import FOLDER as MASKS

MOST_TAGS = 300
STATES = ("all", "trained", "heldout", "captioned", "uncaptioned", "masked", "unmasked")


@dataclass(frozen=True)
class Filter:
    """Which images of a set are shown. `only` and `tagged` are those of the command."""

    only: str | None = None
    tagged: tuple[str, ...] = ()
    state: str = "all"
    finding: str | None = None
    bucket: str | None = None

    @property
    def choice(self) -> Choice:
        """What of it the command has options for."""
        return Choice(only=self.only, tagged=self.tagged)

    @property
    def is_of_command(self) -> bool:
        """Whether the command's options say all of it."""
        return self.state == "all" and self.finding is None and self.bucket is None


@dataclass(frozen=True)
class SetNow:
    """A set that was read, with what its pages need. `state` changes with every file of it."""

    found: EditableSet
    state: str

    def path(self, entry: Entry) -> Path:
        return self.found.folder / entry.name

    def chosen(self, wanted: Filter, sizes: Sizes | None) -> list[Entry]:
        """The images that a filter shows. Raises Refused."""
        if wanted.state not in STATES:
            raise Refused(f"state: expected one of {', '.join(STATES)}, got {wanted.state!r:.60}.")
        entries = [entry for entry in wanted.choice.of(self.found) if _is_in(entry, wanted.state)]
        if wanted.finding is not None:
            looked = FINDINGS.of(self.found.folder)
            marks = looked.by_image() if looked else {}
            entries = [entry for entry in entries if wanted.finding in marks.get(entry.name, ())]
        if wanted.bucket is not None and sizes is not None:
            items = self.items(entries, sizes)
            entries = [e for e in entries if any(f"{i.bucket.width}x{i.bucket.height}" == wanted.bucket for i in items.get(e.name, ()))]
        return entries

    def items(self, entries: Sequence[Entry], sizes: Sizes) -> Mapping[str, Any]:
        """The training items of images, by their names."""
        return items_by_name({entry.name: self.path(entry) for entry in entries}, sizes)

    def buckets(self, sizes: Sizes) -> list[dict[str, Any]]:
        """How many images each bucket has, and which are not trained: those that cannot be read."""
        items = [item for some in self.items(self.found.entries, sizes).values() for item in some]
        counted = images_by_bucket(items)
        return [{"bucket": f"{bucket.width}x{bucket.height}", "images": len(names)} for bucket, names in counted.items()]


def _is_in(entry: Entry, state: str) -> bool:
    has_caption = any(caption.strip() for caption in entry.captions)
    return {
        "all": True,
        "trained": not entry.is_heldout,
        "heldout": entry.is_heldout,
        "captioned": has_caption,
        "uncaptioned": not has_caption,
        "masked": bool(entry.masks),
        "unmasked": not entry.masks,
    }[state]


# --- read once while nothing changes

_KEPT: OrderedDict[Path, SetNow] = OrderedDict()
_LOCK = Lock()
MOST_KEPT = 8


def set_now(folder: Path) -> SetNow:
    """The set as it is; read again where a file of it changed. Raises Refused."""
    state = state_of(folder)
    with _LOCK:
        known = _KEPT.get(folder)
    if known is not None and known.state == state:
        return known
    found = SetNow(read_entries(DataConfig(path=str(folder))), state)
    with _LOCK:
        _KEPT[folder] = found
        _KEPT.move_to_end(folder)
        while len(_KEPT) > MOST_KEPT:
            _KEPT.popitem(last=False)
    return found


def state_of(folder: Path) -> str:
    """A digest of the names, sizes and times of a set's files."""
    digest = hashlib.blake2b(digest_size=16)
    for place in (folder, folder / MASKS, folder / HELDOUT, folder / HELDOUT / MASKS):
        for name, size, changed in sorted(_stats(place)):
            digest.update(f"{name}\0{size}\0{changed}\0".encode("utf-8", "surrogateescape"))
        digest.update(b"\1")
    return digest.hexdigest()


_SEEN: dict[Path, tuple[float, float, str]] = {}  # when a state was taken, the seconds that it took, the state
SHARE = 20  # of its own time that has to pass before a state is taken again


def state_seldom(folder: Path) -> str:
    """`state_of` for pages that watch: of a large set it is as old as SHARE times what it takes."""
    now = time.monotonic()
    known = _SEEN.get(folder)
    if known is not None and now - known[0] < SHARE * known[1]:
        return known[2]
    state = state_of(folder)
    _SEEN[folder] = now, time.monotonic() - now, state
    return state


def _stats(folder: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    stat = entry.stat()
                    yield entry.name, stat.st_size, stat.st_mtime_ns
    except OSError:
        return


# --- as the page shows it


def page_of(now: SetNow, wanted: Filter, sizes: Sizes | None, *, offset: int, limit: int) -> dict[str, Any]:
    """A page of a set, with the tags and counts of all that the filter shows."""
    chosen = now.chosen(wanted, sizes)
    some = chosen[offset : offset + limit]
    looked = FINDINGS.of(now.found.folder)
    marks = looked.by_image() if looked else {}
    items = now.items(some, sizes) if sizes else {}
    counts = Counter(state for entry in now.found.entries for state in STATES if _is_in(entry, state))
    return {
        "folder": str(now.found.folder),
        "state": now.state,
        "total": len(now.found.entries),
        "shown": len(chosen),
        "offset": offset,
        "counts": {state: counts[state] for state in STATES},
        "faults": list(now.found.faults),
        "lint": looked.number if looked and not looked.is_running else None,
        "tags": tags_in(chosen),
        "items": [entry_json(now, entry, marks.get(entry.name, ()), items.get(entry.name, ())) for entry in some],
        **history_json(now.found.folder),
    }


def tags_in(entries: Sequence[Entry]) -> dict[str, Any]:
    """The tags of captions, the most frequent first; an image counts once for each."""
    counted = Counter(tag for entry in entries for tag in {tag.casefold() for caption in entry.captions for tag in tags_of(caption)})
    often = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    return {"different": len(often), "most": [{"tag": tag, "images": number} for tag, number in often[:MOST_TAGS]]}


def entry_json(now: SetNow, entry: Entry, marks: Sequence[str], items: Sequence[Any]) -> dict[str, Any]:
    """An image of the page."""
    path = now.path(entry)
    shape = shape_of(path)
    source = entry.source
    mask = entry.masks[0] if len(entry.masks) == 1 else None
    return {
        "name": entry.name,
        "path": str(path),
        "v": version_of(path),
        "size": [shape.size.width, shape.size.height] if shape.size else None,
        "fault": shape.fault,
        "captions": [caption.strip() for caption in entry.captions],
        "file": source.file if isinstance(source, TextFile) else None if isinstance(source, Unedited) else source.table,
        "sealed": source.reason if isinstance(source, Unedited) else None,
        "heldout": entry.is_heldout,
        "mask": mask,
        "mask_path": str(now.found.folder / mask) if mask else None,
        "mask_v": version_of(now.found.folder / mask) if mask else None,
        "masks": len(entry.masks),
        "findings": list(marks),
        "crops": crops_json(items),
    }


def version_of(path: Path) -> str:
    """A text that changes with a file, "0" where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return "0"
    return f"{stat.st_mtime_ns}-{stat.st_size}"


def history_json(folder: Path) -> dict[str, Any]:
    """The edit that an undo takes back, and one that was interrupted."""
    edits = journal.history(folder)
    opened = None if journal.is_being_edited(folder) else journal.interrupted(folder)
    newest = next((edit for edit in edits if edit.stage != "undone"), None)
    return {
        "undo": newest.to_json() if newest else None,
        "interrupted": opened.to_json() if opened else None,
    }
