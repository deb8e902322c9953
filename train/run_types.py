"""What the modules of a run share: where its lines go, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Log = Callable[[str], None]  # takes one line for the person who waits


def discard(_line: str) -> None:
    """A Log that keeps nothing."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder (absolute) and the content of its result.json."""

    folder: Path
    result: dict[str, Any]
