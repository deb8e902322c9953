"""What a disk refuses to take, as a job failure that names the path, the reason and the room needed."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from registry.errors import Refused, WriteFailed
from registry.printable import one_line

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # nothing of these is ever raised by reading
NOT_TAKEN = (errno.EROFS, *FULL)  # what only reads goes on without what it would cache
REASONS = {
    errno.ENOSPC: ("the disk is full", "Make room, or choose another disk."),
    errno.EDQUOT: ("the disk quota is used up", "Make room, or choose another disk."),
    errno.EFBIG: ("the file is larger than the file system or a limit (ulimit -f) takes", "Choose another disk."),
    errno.EROFS: ("the disk is read-only", "Choose another folder, or mount it for writing."),
    errno.EACCES: ("permission is denied", "Choose another folder, or change its permissions."),
    errno.EPERM: ("permission is denied", "Choose another folder, or change its permissions."),
    errno.EIO: ("the disk reports an input/output error", "Check the disk and the kernel's log, or choose another disk."),
}


def refuse_file_as_folder(setting: str, folder: Path) -> None:
    """Raise Refused where a folder cannot be made since it, or one that it would lie in, is a file."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            if not place.is_dir():
                raise Refused(f"{setting}: {place} is {'a file' if place.exists() else 'a broken link'}. Give a folder.")
            return


class Output(io.FileIO):
    """An open file whose failed writes name it."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor, "wb")
        self.path = path
        self.written = 0
        self.failure: OSError | None = None  # the first one: a library that writes may raise its own error in its place

    def write(self, data: Any) -> int:
        try:
            count = super().write(data)
        except OSError as error:
            error.filename = str(self.path)
            self.failure = self.failure or error
            raise
        self.written += count
        return count

    def sync(self) -> None:
        """Make the bytes last through a power cut."""
        try:
            os.fsync(self.fileno())
        except OSError as error:
            error.filename = str(self.path)
            raise


def write_failed(path: Path | str, error: OSError, *, needed: int | None = None, written: int = 0, freed: int = 0) -> WriteFailed:
    """The failure of a path that an OSError ended: `needed` bytes are known before, `written` is how far it came, `freed` since then."""
    if isinstance(error, WriteFailed):
        needed, written, error = error.needed, error.written, error.reason
    reason, advice = REASONS.get(error.errno or 0, (error.strerror or str(error), "Check the folder."))
    room = ""
    if error.errno in FULL:
        size = _spell(needed) if needed is not None else f"more than {_spell(written)}"
        room = f" It needs {size}, {_spell(_free(Path(path)) + freed)} are free there."
    message = f"{one_line(path)} cannot be written: {reason}.{room} Nothing half written is left. {advice}"
    return WriteFailed(message, reason=error, needed=needed, written=written)


@contextmanager
def explained(path: Path | str, *, needed: int | None = None) -> Iterator[None]:
    """Raises WriteFailed for whatever the system refuses in the block, which writes to this path and reads nothing else."""
    try:
        yield
    except OSError as error:
        raise write_failed(path, error, needed=needed) from error


def make_folder(path: Path) -> Path:
    """The folder, made with its parents where it is missing. Raises WriteFailed."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _free(path: Path) -> int:
    parent = next((one for one in (path, *path.parents) if one.is_dir()), Path())
    return shutil.disk_usage(parent).free


def _spell(count: int) -> str:
    return f"{count:,} bytes" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"
