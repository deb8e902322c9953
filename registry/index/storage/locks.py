"""File locks between processes, released when a process dies. On Windows every lock is granted."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """The file `<path>.lock` held by this process, exclusively or shared; waits for it."""
    with _locked(path, shared=shared, wait=True):
        yield


@contextlib.contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Whether `<path>.lock` could be taken exclusively; does not wait."""
    with _locked(path, shared=False, wait=False) as granted:
        yield granted


@contextlib.contextmanager
def _locked(path: Path, *, shared: bool, wait: bool) -> Iterator[bool]:
    if os.name == "nt":
        yield True
        return
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
