"""Large files written past the page cache: whole pages from a page-aligned buffer (O_DIRECT), where the system and the file system take it.

A file of gigabytes that is written through the cache costs a copy and pushes everything else out of it, for bytes that hardly anybody
reads next. Where O_DIRECT is refused, at once or at the first write, the same bytes go through the cache.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
from typing import Protocol

from registry.files.write_failure import Output

LEAST = 64 << 20  # bytes of a file from which it is worth it; smaller ones are often read next
BUFFER = 1 << 20  # bytes written at a time
PAGE = 4096  # bytes: what every device's block divides
FLAG = getattr(os, "O_DIRECT", 0)  # Linux
REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)


class Sink(Protocol):
    """What takes the bytes of a file from its first to its last."""

    def write(self, data: memoryview, /) -> int: ...

    def flush(self) -> None: ...


def sink_of(file: io.BufferedWriter[Output], size: int) -> Sink:
    """Where to write a file of this size, of which nothing is written yet: past the cache when it is large. Flush it at the end."""
    return DirectWriter(file.raw) if FLAG and size >= LEAST else file


class DirectWriter:
    """Collects what is written and hands it on in whole pages; `flush` writes the rest, and from then on the cache is used."""

    def __init__(self, raw: Output) -> None:
        self._raw = raw
        self._buffer = memoryview(mmap.mmap(-1, BUFFER))  # page-aligned
        self._used = 0
        self._direct = set_direct(raw.fileno(), True)

    def write(self, data: memoryview, /) -> int:
        """Take bytes from the first to the last."""
        done = 0
        while done < len(data):
            count = min(BUFFER - self._used, len(data) - done)
            self._buffer[self._used : self._used + count] = data[done : done + count]
            self._used, done = self._used + count, done + count
            if self._used == BUFFER:
                self._put(BUFFER)
                self._used = 0
        return done

    def flush(self) -> None:
        """Write what is left: its whole pages, then the part of a page, which O_DIRECT does not take."""
        pages = self._used // PAGE * PAGE
        self._put(pages)
        self._through_the_cache()
        self._put(self._used, begin=pages)
        self._used = 0

    def _put(self, end: int, *, begin: int = 0) -> None:
        while begin < end:
            try:
                begin += self._raw.write(self._buffer[begin:end])
            except OSError as error:
                if not self._direct or error.errno not in REFUSED:
                    raise
                self._raw.failure = None  # the file system takes the flag and not the write: no failure of the file
                self._through_the_cache()
            if self._direct and begin % PAGE:  # a part of a page was taken, as by a disk that is all but full
                self._through_the_cache()

    def _through_the_cache(self) -> None:
        if self._direct:
            set_direct(self._raw.fileno(), False)
            self._direct = False


def set_direct(descriptor: int, wanted: bool) -> bool:
    """Switch O_DIRECT of an open file on or off; gives whether it is on now."""
    if not FLAG:
        return False
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | FLAG if wanted else flags & ~FLAG)
    except OSError:  # EINVAL: not on this file system
        return False
    return wanted
