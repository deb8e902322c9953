"""One grid in the report's own viewer. The file on the disk is read, and never sent: see infer/output/page/served.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from infer.explain.cells import explained_panel
from infer.output.page.mended import LOCK, mend
from infer.output.page.served import KEY, Addresses, served_page, served_part
from loraloom.studio.context import Studio
from loraloom.studio.guard import EVERYWHERE
from loraloom.studio.places import MEDIA
from loraloom.studio.routes import Sent, SentFile
from registry.errors import NotFound, Refused
from registry.printable import one_line

SMALL = 384  # pixels of a tile's small copy


def grid_folder(studio: Studio, given: str) -> Path:
    """The folder of a grid that may be shown. Raises Refused, NotFound."""
    folder = studio.places.readable(given)
    if not folder.is_dir() or not (folder / "cells.jsonl").is_file():
        raise NotFound(f"{one_line(given)} is not the folder of a grid: it has no cells.jsonl. Give runs/<name>/<stamp>.")
    return folder


def addresses(folder: Path) -> Addresses:
    """Where a page at api/grids/viewer finds what it needs."""
    own = {"folder": str(folder), "v": _version(folder)}

    def image(inner: str, small: bool) -> str:
        return f"file?{urlencode({**own, **({'side': SMALL} if small else {}), 'name': inner})}"

    question = urlencode({"folder": str(folder)})
    return Addresses(image=image, part=f"part?{question}", panel=f"panel?{question}")


def _version(folder: Path) -> int:
    """Changes when a grid is drawn into this folder anew, which it never is: but a folder may be deleted and made again."""
    try:
        return (folder / "config.yaml").stat().st_mtime_ns
    except OSError:
        return 0


def viewer(folder: Path) -> Sent:
    """The page."""
    html, policy = served_page(folder, addresses(folder))
    return Sent(html.encode("utf-8", "replace"), "text/html; charset=utf-8", policy=f"{policy}; {EVERYWHERE}")


def part(folder: Path, number: int) -> dict[str, Any]:
    """A part of a grid that is being drawn."""
    return served_part(folder, number, addresses(folder))


def panel(folder: Path, key: str) -> dict[str, str]:
    """How a cell's image came about. Raises NotFound where it is not explained."""
    found = addresses(folder)
    html = explained_panel(folder, key, lambda inner: found.image(inner, False)) if KEY.fullmatch(key) else None
    if html is None:
        raise NotFound("This cell is not explained, or what explained it is of another version: explain it again.")
    return {"html": html}


def file(studio: Studio, folder: Path, name: str, side: int, *, lasting: bool) -> Sent | SentFile:
    """An image in the folder of a grid. Raises NotFound for anything else."""
    root = folder.resolve()
    try:
        path = (root / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise NotFound(f"{one_line(name)} is not in the grid's folder.") from error
    if not path.is_relative_to(root) or path.suffix.lower() not in MEDIA or not path.is_file():
        raise NotFound(f"{one_line(name)} is no image in the grid's folder.")
    if side:
        return Sent(*studio.places.thumbnail(path, side), lasting=lasting)
    return SentFile(path, MEDIA[path.suffix.lower()], lasting=lasting)


def mended(studio: Studio, folder: Path) -> dict[str, int]:
    """Make the report of a killed grid whole, as `loraloom report FOLDER` does. Raises Refused while it is drawn."""
    own = studio.places.writable(folder)
    if (own / "result.json").is_file() or (own / LOCK).is_symlink():
        raise Refused(f"{one_line(folder)}: its grid came to its end.")
    found = mend(own)
    return {"there": found.there, "cells": found.cells}
