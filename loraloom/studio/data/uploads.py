"""Files that were dropped on the page, in the home's cache until they are added to a set."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from registry.errors import Refused
from registry.formats.atomic_file import atomic_file

SECONDS = 24 * 3600.0  # after which a file that nobody added is deleted


def folder_of(home: Path) -> Path:
    """Where they lie."""
    return home / "cache" / "studio-uploads"


def take(home: Path, name: str, data: bytes) -> Path:
    """Keep a file under its own name, in a folder of its own. Raises Refused for a name that is a path."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or name.startswith("."):
        raise Refused(f"{name!r}: this is no name of a file.")
    place = folder_of(home)
    _clean(place)
    inner = place / token_hex(8)
    inner.mkdir(parents=True)
    with atomic_file(inner / name, needed=len(data)) as file:
        file.write(data)
    return inner / name


def taken(home: Path, given: str) -> Path:
    """A file that was uploaded. Raises Refused for any other."""
    path = Path(given)
    if ".." in path.parts or path.parent.parent != folder_of(home) or not path.is_file() or path.is_symlink():
        raise Refused(f"{given}: this file was not uploaded here. Choose it again.")
    return path


def drop(paths: Iterable[Path]) -> None:
    """Delete uploads that were used."""
    for path in paths:
        shutil.rmtree(path.parent, ignore_errors=True)


def _clean(place: Path) -> None:
    with suppress(OSError):
        for inner in place.iterdir():
            if inner.stat().st_mtime < time.time() - SECONDS:
                shutil.rmtree(inner, ignore_errors=True)
