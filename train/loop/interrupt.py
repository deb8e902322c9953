"""SIGINT and SIGTERM while training: noted, acted on between two steps, and told with exit code 130."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from registry.errors import LoomError


class Interrupted(LoomError):
    """Stopped by a person or the system; what was learned is in a checkpoint."""

    exit_code = 130


@dataclass
class StopRequest:
    """Whether someone asked to stop, and with which signal."""

    signal_name: str | None = None


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """A Wish that the first SIGINT or SIGTERM sets; a second one ends the program at once. Outside the main thread it stays unset."""
    wish = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if wish.signal_name is not None:
            raise KeyboardInterrupt
        wish.signal_name = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
