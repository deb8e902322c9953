"""Freed memory back to the system: while a model is quantised, and between one model and the next.

glibc keeps what is freed below something that is still in use: between the codes of one layer and the next it would keep the full weights
of all of them, and a quantised model would take more to load than a plain one.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

LARGE = 1 << 20  # numbers of a weight that are worth it


@cache
def _trim() -> Any:
    """glibc's malloc_trim; None elsewhere."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def give_back(numbers: int = LARGE) -> None:
    """Return freed memory, where so many numbers were freed that it matters."""
    if numbers >= LARGE and (trim := _trim()) is not None:
        trim(0)
