"""Freed memory: back to the system while a model is quantised and between one model and the next, kept between denoiser calls.

glibc keeps what is freed below something that is still in use: between the codes of one layer and the next it would keep the full weights
of all of them, and a quantised model would take more to load than a plain one. What is freed at the end of its memory it gives back at
once, and takes again for the next tensor page by page: up to a sixth of a denoiser call of 16 rows (bench/grid).
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

LARGE = 1 << 20  # numbers of a weight that are worth it
KEPT = 512 << 20  # bytes at the end of glibc's memory that stay for the next tensors
LARGEST = 32 << 20  # bytes of a block that may lie there: the most that glibc comes to by itself; larger ones have pages of their own
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@cache
def _trim() -> Any:
    """glibc's malloc_trim; None elsewhere."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def give_back(numbers: int = LARGE) -> None:
    """Return freed memory, where so many numbers were freed that it matters."""
    if numbers >= LARGE and (trim := _trim()) is not None:
        trim(0)


def keep_freed() -> None:
    """Keep freed memory for the next tensors from now on, where the process computes again and again what needs equally much; glibc only.

    `give_back` returns it all the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
