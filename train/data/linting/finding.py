"""One finding of a lint: what it is, the images it concerns, and what to do."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any

from registry.printable import some
from train.data.wording import MOST


@dataclass(frozen=True)
class Finding:
    """`check` is a stable name; `images` are names of the set's images, all of them."""

    check: str
    what: str
    images: tuple[str, ...]
    advice: str
    is_noted: bool = False  # a note of the set has it in words already

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {"check": self.check, "what": self.what, "images": list(self.images), "advice": self.advice}

    def to_text(self, most: int = MOST) -> str:
        """One line."""
        named = f": {some(self.images, most)}" if self.images else ""
        return f"[{self.check}] {self.what}{named}. {self.advice}"


def median(values: Sequence[float]) -> float:
    """As that of `statistics`, whose import takes as long as ten images."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def share(part: Sized | int, whole: int) -> str:
    """3 of 40 (8 %)."""
    number = part if isinstance(part, int) else len(part)
    return f"{number} of {whole} ({number / whole:.0%})"
