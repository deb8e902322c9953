"""The small copies of a set's images, by which near duplicates are found, in their order; those of a large set lie in a file."""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import IO

from registry.images.image_hash import SIDE

BYTES = SIDE * SIDE * 3
PIECE = 1024  # copies that are in memory, 768 KiB, until they are written to the file


class SmallCopies:
    """Small copies by their place. Any thread may read them."""

    def __init__(self) -> None:
        self._last = bytearray()  # the copies behind those in the file
        self._file: IO[bytes] | None = None  # has no name, and is gone with the process
        self._written = 0  # bytes in the file
        self._lock = threading.Lock()
        self._is_full = False  # the disk: the rest stays in memory

    def __len__(self) -> int:
        return (self._written + len(self._last)) // BYTES

    def __getitem__(self, place: int) -> bytes:
        with self._lock:
            start = place * BYTES - self._written
            if start >= 0:
                return bytes(self._last[start : start + BYTES])
            assert self._file is not None
            self._file.seek(place * BYTES)
            return self._file.read(BYTES)

    def append(self, small: bytes) -> None:
        """The small copy of the next image."""
        assert len(small) == BYTES
        self._last += small
        if len(self._last) >= PIECE * BYTES and not self._is_full:
            self._put_away()

    def _put_away(self) -> None:
        with self._lock:
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it is open as long as this
                    weakref.finalize(self, self._file.close)
                self._file.seek(self._written)
                done = 0
                while done < len(self._last):
                    done += self._file.write(self._last[done:])
            except OSError:
                self._is_full = True
                return
            self._written += done
            self._last = bytearray()
