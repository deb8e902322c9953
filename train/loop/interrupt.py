"""SIGINT and SIGTERM while training: acted on between two steps, exit code 130."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from registry.errors import LoomError


class Interrupted(LoomError):
    """Stopped by a signal; the training state is in a checkpoint."""

    exit_code = 130


@dataclass
class StopRequest:
    """Whether a stop was requested, and by which signal."""

    signal_name: str | None = None


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """A StopRequest set by the first SIGINT or SIGTERM; a second one ends the program at once. Outside the main thread it stays unset."""
    stop_request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop_request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if stop_request.signal_name is not None:
            raise KeyboardInterrupt
        stop_request.signal_name = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
