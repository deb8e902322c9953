"""What every answer of the Studio is given: the home's Store, the places it may read and write, and whether it may write at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loraloom.studio.places import Places
from registry.home import home_dir, index_place

if TYPE_CHECKING:
    from registry.store import Store


@dataclass(frozen=True, kw_only=True)
class Studio:
    """One running Studio. Answers run in threads: what they share is locked or belongs to a thread."""

    folder: Path  # the working folder: `runs/` and `grids/` of commands lie below it
    roots: Sequence[Path]  # folders whose files may be read and written, the working folder among them
    read_only: bool = False
    home: Path = field(default_factory=home_dir)
    _own: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def store(self) -> Store:
        """The home's Store, one a thread; a new one when the index is another file: restored, moved or deleted by another process."""
        found: Store | None = getattr(self._own, "store", None)
        file = _file_at(index_place(self.home))
        if found is None or self._own.index_file != file:
            from registry.store import Store

            found = self._own.store = Store(self.home, read_only=self.read_only)
            self._own.index_file = file
        return found

    @property
    def places(self) -> Places:
        """Which files may be read and written."""
        found: Places | None = getattr(self._own, "places", None)
        if found is None:
            found = self._own.places = Places(self.roots, self.home, lambda: self.store)
        return found


def _file_at(place: Path | str) -> tuple[int, int] | None:
    """Device and inode of an index; None where it is not there yet, or is a server's. An open file keeps its inode to itself."""
    try:
        stat = os.stat(place) if isinstance(place, Path) else None
    except OSError:
        return None
    return None if stat is None else (stat.st_dev, stat.st_ino)
