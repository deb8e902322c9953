"""A test that does not end: the processes that it waits for are ended, each with the place in the code of all its threads.

The test then fails with what they said. One that waits for nothing of the kind is ended later with its own process, which says the same
(`faulthandler_timeout` in pyproject.toml).
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LIMIT = 600  # seconds


@contextmanager
def limited(seconds: float = LIMIT) -> Iterator[None]:
    """After so many seconds in the block what this process has started is ended."""
    timer = threading.Timer(seconds, end_started, [os.getpid()])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def end_started(process: int) -> None:
    """End what a process has started, and what that has, by SIGABRT: Python then writes where it is (PYTHONFAULTHANDLER)."""
    for started in started_by(process):
        with suppress(ProcessLookupError):
            os.kill(started, signal.SIGABRT)
            os.kill(started, signal.SIGCONT)


def started_by(process: int) -> list[int]:
    """The processes below one, the nearest first; none where the system has no /proc."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()  # state, parent, ...
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [*parents.get(process, [])]
    for one in found:
        found += parents.get(one, [])
    return found
