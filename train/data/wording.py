"""Counts and lists of files in messages."""

from collections.abc import Sequence
from pathlib import Path

from registry.printable import some

MOST = 12  # names in one message


def names_of(files: Sequence[Path], *, most: int = MOST) -> str:
    """The files' names, the first of them where there are many."""
    return some((file.name for file in files), most)
