"""Files read into the page cache before they are needed, beside other work: loading them is then a copy of memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from registry.budget.free import available_bytes

PIECE = 4 << 20  # bytes a request: the kernel reads no more than a few MiB of what it is advised, whatever the range
SHARE = 0.5  # of the memory that is free: the cache must not drive out what is in use


class ReadAhead:
    """Files that are read ahead on a thread of its own until `stop`. Where the system cannot, or memory is short, nothing is read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.bytes = 0  # that were asked for
        self._paths = list(paths)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def start(self) -> None:
        """Begin, unless the files do not fit the free memory well."""
        free = available_bytes()
        if hasattr(os, "posix_fadvise") and free is not None and sum(map(_size, self._paths)) <= SHARE * free:
            self._thread.start()

    def stop(self) -> None:
        """End it: what is not read by now is read by whoever needs it."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _read(self) -> None:
        for path in self._paths:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:
                continue  # whoever loads it says what is wrong
            try:
                for begin in range(0, os.fstat(descriptor).st_size, PIECE):
                    if self._stopped.is_set():
                        return
                    os.posix_fadvise(descriptor, begin, PIECE, os.POSIX_FADV_WILLNEED)
                    self.bytes += PIECE
            except OSError:
                continue
            finally:
                os.close(descriptor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
