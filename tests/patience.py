"""How long tests wait for other processes and for browsers, in one place: a machine may have much other work to do."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 240  # seconds until what has not come is missing; what is there is waited for no longer than it takes


def until(found: Callable[[], T | None], *, every: float = 0.05) -> T:
    """What `found` gives, once it is not empty; asked again after so many seconds."""
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < end, f"waited {PATIENCE} s for nothing"
        time.sleep(every)
    return value
