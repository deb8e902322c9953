"""The grids below the Studio's folders, newest first. Folders that did not change are not read again."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from infer.output.page.mended import was_killed
from infer.vote.votes import NAME as VOTES
from loraloom.studio.context import Studio
from registry.errors import LoomError
from registry.plain_values import from_json, from_yaml

DEEPEST = 7  # folders below a root: runs/<name>/<stamp>/choosing/<images>/<stamp>, and one more
MOST_FOLDERS = 50_000  # that are looked into
MOST_KEPT = 4000  # grids whose values are kept in memory
SKIPPED = frozenset({"images", "thumbs", "live", "explain", "checkpoints", "node_modules", "__pycache__", "site-packages"})
SETTLED = 2.0  # seconds after which a folder's time of change can be trusted
SHEET = 4_000_000  # bytes of a sheet.png whose small copy is shown; of a larger one the first images are
LARGEST = 1 << 28  # bytes of a cells.jsonl that is counted
HEAD = 1 << 16  # bytes of cells.jsonl that are read for the first images
TILES = 4
MOST_RUNS = 200
WATCHED = 40  # of the newest grids, whose changes pages are told


@dataclass(frozen=True)
class Place:
    """A grid's folder, and when it was begun, in ns."""

    folder: Path
    began: int


@dataclass
class _Folder:
    """What a folder held when it was last read."""

    changed: int
    read: float
    inner: list[str] = field(default_factory=list)
    is_grid: bool = False
    is_run: bool = False


_listings: dict[tuple[Path, ...], Listing] = {}
_making = threading.Lock()


class Listing:
    """The grids below some folders."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = list(dict.fromkeys(root.resolve() for root in roots))
        self._folders: dict[str, _Folder] = {}
        self._rows: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self.whole = True  # not all folders were looked into

    def places(self) -> list[Place]:
        """All of them, the newest first."""
        with self._lock:
            found: dict[str, int] = {}
            seen = 0
            self.whole = True
            for root in self._roots:
                for path, one in self._walk(str(root)):
                    seen += 1
                    if seen > MOST_FOLDERS:
                        self.whole = False
                        break
                    if one.is_grid and path not in found:
                        found[path] = _began(path)
            return sorted((Place(Path(path), began) for path, began in found.items()), key=lambda one: (-one.began, str(one.folder)))

    def _walk(self, root: str) -> Iterator[tuple[str, _Folder]]:
        waiting = [(root, 0)]
        while waiting:
            path, depth = waiting.pop()
            one = self._folder(path)
            if one is None:
                continue
            yield path, one
            if not one.is_grid and depth < DEEPEST:
                waiting += [(f"{path}/{name}", depth + 1) for name in one.inner]

    def _folder(self, path: str) -> _Folder | None:
        try:
            changed = os.stat(path).st_mtime_ns
            known = self._folders.get(path)
            if known is not None and known.changed == changed and known.read - changed / 1e9 > SETTLED:
                return known
            one = _Folder(changed, time.time())
            files = set()
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith(".") and entry.name not in SKIPPED:
                            one.inner.append(entry.name)
                    else:
                        files.add(entry.name)
            one.is_run = "metrics.jsonl" in files and "config.yaml" in files
            one.is_grid = "cells.jsonl" in files and "report.html" in files
        except OSError:  # removed, or another's
            self._folders.pop(path, None)
            return None
        self._folders[path] = one
        return one

    def page(self, offset: int, limit: int, *, search: str = "") -> dict[str, Any]:
        """`total` and the `rows` from an offset on, of the grids that have all words of a search; `whole`: every folder was looked into."""
        places = self.places()
        if words := search.lower().split():
            rows = [row for one in places if all(word in _searched(row := self.row(one.folder)) for word in words)]
            return {"total": len(rows), "rows": rows[offset : offset + limit], "whole": self.whole}
        return {"total": len(places), "rows": [self.row(one.folder) for one in places[offset : offset + limit]], "whole": self.whole}

    def runs(self) -> list[dict[str, str]]:
        """The training runs with checkpoints, the newest first."""
        with self._lock:
            found = {path: _began(path) for root in self._roots for path, one in self._walk(str(root)) if one.is_run}
        folders = sorted(map(Path, found), key=lambda path: -found[str(path)])
        kept = [path for path in folders if (path / "checkpoints").is_dir()][:MOST_RUNS]
        return [{"folder": str(path), "name": path.parent.name, "stamp": path.name} for path in kept]

    def state(self) -> list[list[Any]]:
        """Changes whenever one of the newest grids does, or one is added or removed."""
        places = self.places()
        return [[len(places), 0], *([str(one.folder), sum(_signature(one.folder))] for one in places[:WATCHED])]

    def row(self, folder: Path) -> dict[str, Any]:
        """What a list shows of a grid."""
        signature = _signature(folder)
        known = self._rows.get(str(folder))
        if known is None or known[0] != signature or known[1]["state"] == "drawing":
            while len(self._rows) > MOST_KEPT:
                self._rows.pop(next(iter(self._rows)), None)
            known = self._rows[str(folder)] = signature, _row(folder)
        return known[1]


def listing_of(studio: Studio) -> Listing:
    """The one listing of a Studio."""
    with _making:
        return _listings.setdefault(tuple(studio.roots), Listing(studio.roots))


def _searched(row: dict[str, Any]) -> str:
    axes = " ".join(f"{one['name']} {one['values']}" for one in row["axes"])
    return f"{row['folder']} {row['base']} {axes}".lower()


def _began(path: str) -> int:
    for name in ("config.yaml", "cells.jsonl"):
        try:
            return os.stat(f"{path}/{name}").st_mtime_ns
        except OSError:
            pass
    return 0


def _changed(path: Path) -> str:
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:
        return ""


def _signature(folder: Path) -> tuple[int, ...]:
    """Changes with whatever a row is read from."""
    found = []
    for name in ("cells.jsonl", "result.json", "config.yaml", "sheet.png", "report.html", VOTES):
        try:
            stat = (folder / name).stat()
            found += [stat.st_mtime_ns, stat.st_size]
        except OSError:
            found += [0, 0]
    return tuple(found)


def _row(folder: Path) -> dict[str, Any]:
    result = _json(folder / "result.json")
    config = read_config(folder)
    state = "done" if result else "killed" if was_killed(folder) else "drawing"
    images, version = _pictures(folder, finished=bool(result))
    count = _counts(folder, result)
    return {
        "folder": str(folder),
        "name": folder.parent.name,
        "stamp": folder.name,
        "state": state,
        **count,
        "seconds": result.get("seconds") if isinstance(result.get("seconds"), int | float) else None,
        "base": config["base"] if isinstance(config.get("base"), str) else "",
        "axes": _axes(config),
        "images": [str(path) for path in images],
        "sheet": bool(result) and len(images) == 1 and images[0].name == "sheet.png",
        "version": version,
        "votes": _lines(folder / VOTES),
        "report": _changed(folder / "report.html"),
        "run": str(run) if (run := run_of(folder)) is not None else None,
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in a grid's config.yaml as plain values; {} where there are none that can be read."""
    try:
        path = folder / "config.yaml"
        found = from_yaml(path.read_text(encoding="utf-8")) if path.stat().st_size < 1 << 22 else None
    except (OSError, ValueError):
        return {}
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def run_of(folder: Path) -> Path | None:
    """The training run in whose folder a grid of its checkpoints lies."""
    for run in islice(folder.parents, 1, 4):
        if (run / "metrics.jsonl").is_file() and (run / "config.yaml").is_file():
            return run
    return None


def _counts(folder: Path, result: dict[str, Any]) -> dict[str, int]:
    """Cells, those that are done, those that failed."""
    numbers = [result.get(name) for name in ("cells", "failed", "missing")]
    if all(type(one) is int for one in numbers):
        cells, failed, missing = map(int, numbers)  # type: ignore[arg-type]
        return {"cells": cells, "done": cells - failed - missing, "failed": failed}
    cells = done = failed = 0
    try:
        with (folder / "cells.jsonl").open("rb") as file:
            for line in file if os.fstat(file.fileno()).st_size < LARGEST else ():
                entry = _object(line)
                cells += 1
                done += isinstance(entry.get("image"), str)
                failed += entry.get("status") == "failed"
    except OSError:
        pass
    return {"cells": cells, "done": done, "failed": failed}


SEVERAL = re.compile(r"\*|^@|/|^\s*-?[\d.]+\s*-\s*[\d.]")  # a pattern, a file of values, a folder, a range


def _axes(config: dict[str, Any]) -> list[dict[str, str | None]]:
    """Each axis with its values, as they were given, in one line; `count` is None where one of them may stand for several."""
    given = config.get("axes")
    if not isinstance(given, dict):
        return []
    rows: list[dict[str, str | None]] = []
    for name, values in islice(given.items(), 20):
        listed = values if isinstance(values, list) else [values]
        shown = ", ".join(str(one)[:60] for one in listed[:6]) + (f", and {len(listed) - 6} more" if len(listed) > 6 else "")
        count = None if any(isinstance(one, str) and SEVERAL.search(one) for one in listed) else str(len(listed))
        rows.append({"name": str(name)[:40], "count": count, "values": shown})
    return rows


def _pictures(folder: Path, *, finished: bool) -> tuple[list[Path], str]:
    """The images that stand for a grid, and a version of them: its sheet, or the first of its images."""
    sheet = folder / "sheet.png"
    try:
        stat = sheet.stat()
        if finished and not sheet.is_symlink() and stat.st_size < SHEET:
            return [sheet], str(stat.st_mtime_ns)
    except OSError:
        pass
    found = []
    try:
        with (folder / "cells.jsonl").open("rb") as file:
            head = file.read(HEAD).split(b"\n")[:-1]
    except OSError:
        head = []
    for entry in map(_object, head):
        image = entry.get("image")
        path = folder / image if isinstance(image, str) and "\0" not in image else None
        if path is not None and path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            found.append(path)
            if len(found) == TILES:
                break
    return found, "1"


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = from_json(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        return _object(path.read_bytes()) if path.stat().st_size < 1 << 26 else {}
    except OSError:
        return {}


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except (OSError, LoomError):
        return 0
