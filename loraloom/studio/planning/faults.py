"""Which setting a fault is of, so that a page can show it beside its field."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

QUOTED = re.compile(r"'([^']+)'")
FIRST = re.compile(r"[A-Za-z_][\w.]*")


def setting_of(fault: str, words: Sequence[str], known: Collection[str]) -> str | None:
    """The name of the setting: the one that the fault begins with or gives as NAME=, else the one whose value it begins with or quotes."""
    first = FIRST.match(fault)
    if first and (own := _known(first[0], known)) is not None:
        return own
    for name in re.findall(r"([A-Za-z_][\w.]*)=", fault):
        if (own := _known(name, known)) is not None:
            return own
    given = [word.partition("=")[::2] for word in words if "=" in word]
    for name, value in given:
        if value and fault.startswith((f"{value}: ", f"{value} ")):
            return str(name)
    for text in QUOTED.findall(fault):
        for name, value in given:
            if text == value or f'"{text}"' in value or text in re.split(r"[\[\],+\s]+", value):
                return str(name)
    return None


def _known(name: str, known: Collection[str]) -> str | None:
    """The setting of this name, or of its beginning: `seed` of a sentence that ends there with a full stop."""
    name = name.rstrip(".")
    return name if name in known else None
