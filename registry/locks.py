"""Locks between processes; the system lets go of them when a process dies."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """The file `<path>.lock` held by this process alone; others wait."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
