"""Counts and lists of names in messages."""

from collections.abc import Sequence
from pathlib import Path

MOST = 12  # names in one message


def counted(number: int, noun: str) -> str:
    """1 caption, 3 captions."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], *, most: int = MOST, between: str = ", ") -> str:
    """The names, the first of them where there are many."""
    return between.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def names_of(files: Sequence[Path], *, most: int = MOST) -> str:
    """The files' names, the first of them where there are many."""
    return listed([file.name for file in files], most=most)
