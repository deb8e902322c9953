"""SIGINT, SIGTERM and SIGHUP (a closed terminal) while training: acted on between two steps, exit code 130."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from registry.errors import LoomError

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interrupted(LoomError):
    """Stopped by a signal; the training state is in a checkpoint."""

    exit_code = 130


@dataclass
class StopRequest:
    """Whether a stop was requested, and by which signal."""

    signal_name: str | None = None


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """A StopRequest set by the first of the signals; a second SIGINT or SIGTERM ends the program at once.

    A closed terminal sends SIGHUP more than once, so that another one changes nothing. A SIGHUP that is ignored (nohup) stays ignored.
    Outside the main thread the request stays unset.
    """
    stop_request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop_request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if stop_request.signal_name is None:
            stop_request.signal_name = name
        elif name != "SIGHUP":
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    numbers = [number for number in numbers if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop_request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
