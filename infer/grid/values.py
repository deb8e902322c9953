"""Readers of axis values: one value as a person gives it -> the values it stands for. Each raises Refused with what it takes."""

import re
from collections.abc import Sequence

from registry.errors import Refused

_INTEGERS = re.compile(r"\s*(\d+)\s*(?:-|\.\.)\s*(\d+)\s*")  # 1-4, 1..4: both ends
_NUMBERS = re.compile(r"\s*([-+]?[\d.]+?)\s*\.\.\s*([-+]?[\d.]+)\s*/\s*(\d+)\s*")  # 0..1/5: five values, both ends
_SIZE = re.compile(r"\s*(\d+)(?:\s*[xX×]\s*(\d+))?\s*")
MOST = 100_000  # values of one range; more is a slip of the finger


def texts(value: object) -> Sequence[str | None]:
    """The text itself; a number as it is spelt; None stays None."""
    if value is None or isinstance(value, str):
        return (value,)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (str(value),)
    raise Refused(f"{value!r} is not a text. In a list, put texts with commas or brackets in quotes.")


def integers(value: object) -> Sequence[int]:
    """A whole number, a range such as 1-4, or several of them with commas."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, float) and value.is_integer():
        return (int(value),)
    if isinstance(value, str):
        if "," in value:
            return [number for part in value.split(",") for number in integers(part)]
        if match := _INTEGERS.fullmatch(value):
            first, last = int(match[1]), int(match[2])
            step = 1 if last >= first else -1
            if abs(last - first) >= MOST:
                raise Refused(f"{value!r} is {abs(last - first) + 1} values; at most {MOST} stand in one range.")
            return range(first, last + step, step)
        if re.fullmatch(r"\s*-?\d+\s*", value):
            return (int(value),)
    raise Refused(f"{value!r} is not a whole number, nor a range such as 1-4.")


def numbers(value: object) -> Sequence[float]:
    """A number, `0..1/5` (five values evenly from 0 to 1), or several of them with commas."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return (float(value),)
    if isinstance(value, str):
        if "," in value:
            return [number for part in value.split(",") for number in numbers(part)]
        try:
            if match := _NUMBERS.fullmatch(value):
                return _evenly(float(match[1]), float(match[2]), int(match[3]))
            if abs(float(value)) < float("inf"):
                return (float(value),)
        except ValueError:
            pass
    raise Refused(f"{value!r} is not a number, nor numbers such as 0..1/5 (five values from 0 to 1).")


def _evenly(first: float, last: float, count: int) -> list[float]:
    if not 2 <= count <= MOST:
        raise Refused(f"{first:g}..{last:g}/{count}: the count after / is from 2 to {MOST}.")
    return [round(first + (last - first) * index / (count - 1), 10) for index in range(count)]  # 0.30000000000000004 is 0.3


def sizes(value: object) -> Sequence[tuple[int, int]]:
    """(width, height) in pixels of 64, "96x64" or [96, 64]."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ((value, value),)
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return ((int(match[1]), int(match[2] or match[1])),)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2 and all(type(side) is int for side in value):
        return ((value[0], value[1]),)
    raise Refused(f"{value!r} is not a size. Expected 64, 96x64 (width x height) or [96,64].")


def spell_size(value: tuple[int, int]) -> str:
    """64x64, width first."""
    return f"{value[0]}x{value[1]}"


def every(value: object) -> list[object]:
    """The values of a setting that is one value or a list of them."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
