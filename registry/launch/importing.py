"""Imports of torch, diffusers, transformers and peft without the garbage collector's work on them.

These imports make about a million objects that live as long as the process. Python's collector looks at them again with every few
hundred new ones, and three times more when the process ends, and finds nothing: 2 of the 5 CPU seconds that importing them takes.
"""

from __future__ import annotations

import atexit
import gc
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from registry.launch.late import finder
from registry.launch.searches import LatePackages, packages_distributions

MANY = 100  # modules that make setting aside worth it

_of_a_command = False


def process_of_a_command() -> None:
    """Say that this process runs one command and ends: what its imports made is set aside, and not looked at again.

    In a process of others nothing is set aside: with it goes all else that is there, and a cycle of that would never be freed.
    """
    global _of_a_command
    _of_a_command = True
    atexit.register(gc.freeze)  # what is left ends with the process: nothing of it is looked for


@contextmanager
def importing() -> Iterator[None]:
    """No garbage collection inside the block, modules that are seldom used are late ones, and searches take less time."""
    if finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)
    finder.active += 1
    importlib.metadata.packages_distributions = LatePackages
    try:
        with _without_collection():
            yield
    finally:
        finder.active -= 1
        if not finder.active:
            importlib.metadata.packages_distributions = packages_distributions


def import_torch() -> None:
    """Import torch so, before a module imports it at its first tensor: for a command whose plan did without it and is accepted."""
    with importing():
        import torch  # noqa: F401


@contextmanager
def _without_collection() -> Iterator[None]:
    if not gc.isenabled():
        yield
        return
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if _of_a_command and len(sys.modules) - before >= MANY:
            gc.freeze()
        gc.enable()
