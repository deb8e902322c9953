"""Unreferenced files and rows: orphaned blobs, abandoned downloads, unfinished files of killed processes.

On request also rows of models whose files are gone, the caches, and blobs of a remote store, which other indexes may use.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from registry.files.locks import held_if_free
from registry.files.unfinished import NAMED, TEMPORARY, leftovers, remove_leftover
from registry.index import database as tables
from registry.index import records, rows
from registry.index.database import Index
from registry.index.storage.blobs import Blob, Blobs

YOUNG_SECONDS = 600  # younger unfinished files may still be written
IN_USE = "is in use by a grid or a training: it is left as it is."
CACHES = ("cache", "cells", "latents", "scores")  # in the home: latents and embeddings of training, images, their final latents and scores


@dataclass(frozen=True)
class GarbageItem:
    """One deletable item. `why`: orphan-blob, quarantine, unfinished, cache, missing-row."""

    why: str
    path: str
    bytes: int
    record_id: str | None = None
    blob: Blob | None = None


@dataclass
class Garbage:
    """The deletable items, whether they were deleted, and what was left."""

    items: list[GarbageItem] = field(default_factory=list)
    applied: bool = False
    left: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Bytes that it frees."""
        return sum(item.bytes for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        items = [{"why": item.why, "path": item.path, "bytes": item.bytes} for item in self.items]
        return {"applied": self.applied, "bytes": self.bytes, "items": items, "left": self.left}


def find_garbage(index: Index, blobs: Blobs, home: Path, *, missing: bool, caches: bool, elsewhere: bool) -> Garbage:
    """Find deletable items."""
    found = Garbage()
    with index.reading() as connection:
        needed = _needed(connection)
        found.items += _rows(connection) if missing else []
    for blob in blobs:
        if blob.sha256 not in needed and (blob.local or elsewhere):
            found.items.append(GarbageItem("orphan-blob", blob.address, blob.bytes, blob=blob))
    quarantine = home / "quarantine"
    for path in sorted(quarantine.glob("*")) if quarantine.is_dir() else ():
        if path.suffix != ".lock":
            found.items.append(GarbageItem("quarantine", str(path), path.stat().st_size))
    for path in sorted({*_unfinished(home, blobs), *_of_outputs(index)}):
        with suppress(FileNotFoundError):  # its process has finished it, or removed it
            _add_unfinished(found, path)
    for name in CACHES if caches else ():
        with held_if_free(home / name) as free:
            in_use = not free
        if in_use:
            found.left.append(f"{home / name} {IN_USE}")
        elif (home / name).is_dir():
            found.items.append(GarbageItem("cache", str(home / name), _size(home / name)))
    return found


def _add_unfinished(found: Garbage, path: Path) -> None:
    if not NAMED.fullmatch(path.name) and time.time() - path.stat().st_mtime < YOUNG_SECONDS:
        found.left.append(f"{path} is younger than {YOUNG_SECONDS // 60} minutes: it may still be written.")
    else:
        found.items.append(GarbageItem("unfinished", str(path), _size(path)))


def sweep(found: Garbage, index: Index, blobs: Blobs) -> Garbage:
    """Delete what was found. Blobs and downloads stay while another process is downloading."""
    gone: list[GarbageItem] = []
    with blobs.alone() as alone:
        if not alone:
            found.left.append("Another process is downloading a model: blobs and downloads are left as they are.")
        with index.writing() as connection:
            needed = _needed(connection)
            for item in found.items:
                if item.why in ("orphan-blob", "quarantine") and not alone:
                    continue
                if item.record_id is not None:
                    rows.forget(connection, item.record_id)
                elif item.blob is not None:
                    if item.blob.sha256 in needed:
                        continue  # registered since
                    blobs.remove(item.blob)
                elif item.why == "cache" and not _delete_cache(Path(item.path)):
                    found.left.append(f"{item.path} {IN_USE}")
                    continue
                elif item.why != "cache" and not _delete(Path(item.path)):
                    found.left.append(f"{item.path} cannot be deleted.")
                    continue
                gone.append(item)
    return Garbage(gone, applied=True, left=found.left)


def _needed(connection: Connection) -> set[str]:
    """Hashes of all files of all records."""
    needed: set[str] = set()
    for record in records.load(connection):
        needed |= {record.hashes.sha256} if record.hashes.sha256 else set()
        needed |= set(record.metadata.get("files_sha256", {}).values())
    for row in connection.execute(select(tables.location.c.path)):
        needed.add(Path(row.path).name[:64])  # a blob that is registered and not hashed yet
    return needed


def _rows(connection: Connection) -> Iterator[GarbageItem]:
    """Records whose files are all gone. A run or dataset whose folder is gone stays: its children refer to it."""
    for record in records.load(connection):
        paths = [path for path in (record.path, *record.metadata.get("copies", ())) if path]
        if record.kind not in ("dataset", "run") and not any(os.path.lexists(path) for path in paths):
            yield GarbageItem("missing-row", f"{record.name} ({record.path})", 0, record_id=record.id)


def _unfinished(home: Path, blobs: Blobs) -> list[Path]:
    below = [f"{name}/{depth}" for name in CACHES for depth in ("", "*/", "*/*/")]
    here = [path for pattern in ("", *below) for path in home.glob(f"{pattern}{TEMPORARY}*")]
    found = {*here, *blobs.leftovers()}
    unlocked = {one for folder in {path.parent for path in found} for one in leftovers(folder)}
    return [path for path in sorted(found) if path in unlocked or not NAMED.fullmatch(path.name)]


def _of_outputs(index: Index) -> set[Path]:
    """What killed processes left in the folders of registered files."""
    with index.reading() as connection:
        places = [Path(row.path).parent for row in connection.execute(select(tables.location.c.path))]
    return {path for folder in set(places) for path in leftovers(folder)}


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def _delete_cache(path: Path) -> bool:
    """Delete a cache unless a grid or a training uses it; gives whether it is gone."""
    with held_if_free(path) as free:
        return free and _delete(path)


def _delete(path: Path) -> bool:
    if NAMED.fullmatch(path.name):
        return remove_leftover(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
