"""File locks between processes (flock), released when a process dies. On Windows every lock is granted.

A lock file is never changed, and a link in its place is refused: it would lock, or empty, another file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from registry.errors import Refused, WriteFailed
from registry.files.write_failure import explained


@contextlib.contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """The file `<path>.lock` held by this process, exclusively or shared; waits for it."""
    with locked(path.with_name(path.name + ".lock"), shared=shared, wait=True):
        yield


@contextlib.contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Whether `<path>.lock` could be taken exclusively; does not wait."""
    with locked(path.with_name(path.name + ".lock"), wait=False) as granted:
        yield granted


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool) -> Iterator[bool]:
    """Whether this lock file is held by this process; the file stays. Makes it, and its folder. Raises WriteFailed."""
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = open_lock(path)
    except WriteFailed as error:
        if shared and error.errno in (errno.EROFS, errno.EACCES):  # where nothing can be written, nothing is deleted either
            yield True
            return
        raise
    try:
        yield take(descriptor, shared=shared, wait=wait) is not False
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_while_it_lasts(path: Path, *, wait: bool) -> Iterator[bool]:
    """`locked` exclusively, by a file that is removed with the lock; its folder must exist."""
    descriptor = None
    while descriptor is None:
        descriptor = open_lock(path)
        if take(descriptor, wait=wait) is False:
            os.close(descriptor)
            yield False
            return
        if os.name != "nt" and not is_at(descriptor, path):  # its holder removed it since it was opened
            os.close(descriptor)
            descriptor = None
    try:
        yield True
    finally:
        if os.name != "nt":
            path.unlink(missing_ok=True)
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, made where it is missing and left as it is where not. Raises Refused for a link."""
    flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # EMLINK: FreeBSD's word for it
            raise Refused(f"{path} is a link; a lock file was expected there. Remove the link.") from error
        raise


def take(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Whether the open file or folder could be locked; None where the system or the file system has no such locks."""
    if os.name == "nt":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks
        return None
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at this path."""
    mine = os.fstat(descriptor)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
