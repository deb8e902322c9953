"""The fields of one program's metadata, each taken once by its name and type; what nobody took is reported."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from infer.metadata.result import Unread

SHOWN = 200  # characters of a value that was not read
MOST = 60  # values that are reported one by one


class Fields:
    """A mapping whose values come from elsewhere: of any type, and never trusted."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._left = {str(name): value for name, value in values.items()}
        self.unread: list[Unread] = []
        self.unread_loras: list[Unread] = []

    def take(self, *names: str) -> Any:
        """The value of the first of these names that there is, any type; None where there is none."""
        for name in names:
            if name in self._left:
                return self._left.pop(name)
        return None

    def text(self, *names: str) -> str | None:
        """A text; a number as it is spelt."""
        value = self.take(*names)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        self.report(names[0], value, "it is no text")
        return None

    def whole(self, *names: str) -> int | None:
        """A whole number of at most 20 digits, also as a text or as 20.0."""
        value = self.take(*names)
        if (found := whole_number(value)) is None and value not in (None, ""):
            self.report(names[0], value, "it has more than 20 digits" if _is_long(value) else "it is no whole number")
        return found

    def real(self, *names: str) -> float | None:
        """A finite number, also as a text."""
        value = self.take(*names)
        if (found := real_number(value)) is None and value not in (None, ""):
            self.report(names[0], value, "it is no number")
        return found

    def table(self, *names: str) -> Mapping[str, Any]:
        """A mapping; an empty one where there is none."""
        value = self.take(*names)
        if value is None or isinstance(value, Mapping):
            return value or {}
        self.report(names[0], value, "it is no object")
        return {}

    def rows(self, *names: str) -> list[Any]:
        """A list; an empty one where there is none."""
        value = self.take(*names)
        if value is None or isinstance(value, list):
            return value or []
        self.report(names[0], value, "it is no list")
        return []

    def drop(self, *names: str) -> None:
        """Values that do not change the image, or follow from others."""
        for name in names:
            self._left.pop(name, None)

    def names(self) -> list[str]:
        """What is still there."""
        return list(self._left)

    def report(self, name: str, value: Any, why: str = "there is no such setting here") -> None:
        """Keep a value as one that was not read."""
        self.unread.append(unread(name, value, why))

    def report_lora(self, name: str, value: Any, why: str) -> None:
        """Keep what names a LoRA and cannot be read: the image is another one without it."""
        self.unread_loras.append(unread(name, value, why))

    def finish(self, *, idle: Iterable[Any] = (None, "", False)) -> tuple[Unread, ...]:
        """What was not read, with all that nobody took; `idle` values of the latter change nothing."""
        for name, value in self._left.items():
            if not any(value is one or (value == one and type(value) is type(one)) for one in idle) and value not in ([], {}):
                self.report(name, value)
        self._left = {}
        if len(self.unread) > MOST:
            more = len(self.unread) - MOST
            return (*self.unread[:MOST], Unread(name="further values", value=f"{more}", why="too many to report one by one"))
        return tuple(self.unread)


def unread(name: str, value: Any, why: str = "there is no such setting here") -> Unread:
    """A value that is not read, short enough for a message."""
    return Unread(name=_cut(name, 80), value=_cut(spelled(value), SHOWN), why=why)


def spelled(value: Any) -> str:
    """A value of JSON as a person reads it."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"


def whole_number(value: Any) -> int | None:
    """A whole number of at most 20 digits of 20, 20.0 and "20"; None of anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        digits = value.strip().removeprefix("-")
        return int(value) if digits.isascii() and digits.isdecimal() and len(digits) <= 20 else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() and abs(value) < 1e20 else None
    return value if isinstance(value, int) and abs(value) < 10**20 else None


def _is_long(value: Any) -> bool:
    """Whether it is a whole number, but for its many digits."""
    if isinstance(value, str):
        digits = value.strip().removeprefix("-")
        return digits.isascii() and digits.isdecimal()
    if isinstance(value, float):
        return math.isfinite(value) and value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def real_number(value: Any) -> float | None:
    """A finite number of 0.5 and "0.5"; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and len(value) > 40):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
