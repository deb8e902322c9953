"""Readers of values as a person gives them ("1-4" is 1, 2, 3, 4), and their spelling.

Each reader raises Refused with what it takes.
"""

import re
from collections.abc import Sequence
from enum import Enum
from sys import float_info
from typing import Any, TypeGuard

from registry.errors import Refused

_DIGITS = r"\d{1,99}"  # more are no seed and no size; Python itself reads 4300
_INTEGER = re.compile(rf"\s*-?{_DIGITS}\s*")
_INTEGERS = re.compile(rf"\s*({_DIGITS})\s*(?:-|\.\.)\s*({_DIGITS})\s*")  # 1-4, 1..4: both ends
_NUMBERS = re.compile(r"\s*([-+]?[\d.]+?)\s*\.\.\s*([-+]?[\d.]+)\s*/\s*(\d+)\s*")  # 0..1/5: five values, both ends
_NUMBER = r"([-+]?(?:\d{1,99}(?:\.\d*)?|\.\d+))"
_STEPPED = re.compile(  # A1111's 1-10 (+2), and 0..1 step 0.25
    rf"\s*{_NUMBER}\s*(?:-|\.\.)\s*{_NUMBER}\s*(?:\(\s*{_NUMBER}\s*\)|step\s*{_NUMBER})\s*"
)
_COUNTED = re.compile(rf"\s*{_NUMBER}\s*(?:-|\.\.)\s*{_NUMBER}\s*\[\s*(\d{{1,9}})\s*\]\s*")  # A1111's 1-10 [5]
_SIZE = re.compile(rf"\s*({_DIGITS})(?:\s*[xX×]\s*({_DIGITS}))?\s*")
MOST = 100_000  # values of one range; more is a typing mistake


class Fit(Enum):
    """How an image of another shape than the drawing's is made its size; null refuses one."""

    stretch = "stretch"
    crop = "crop"


class Precision(Enum):
    """The dtype of the weights and the arithmetic; fp32 is diffusers' default."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class PromptDialect(Enum):
    """The grammar that prompts are read in."""

    plain = "plain"
    a1111 = "a1111"
    a1111_no_norm = "a1111_no_norm"
    comfy = "comfy"


def dialects(value: object) -> Sequence[str]:
    """The name of a dialect of prompts."""
    if isinstance(value, str) and value in PromptDialect.__members__:
        return (value,)
    raise Refused(f"{value!r} is no dialect of prompts. Expected {', '.join(PromptDialect.__members__)}.")


def member_name(value: Any) -> Any:
    """The name of an Enum's member; any other value as it is."""
    return value.name if isinstance(value, Enum) else value


def texts(value: object) -> Sequence[str | None]:
    """The text itself; a number as it is spelt; None stays None."""
    if value is None or isinstance(value, str):
        return (value,)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (str(value),)
    raise Refused(f"{value!r} is not a text. In a list, put texts with commas or brackets in quotes.")


def prompts(value: object) -> Sequence[str]:
    """A prompt; null is refused."""
    if value is None:
        raise Refused('null is no prompt; an empty one is "".')
    return [text for text in texts(value) if text is not None]


def names(value: object) -> Sequence[str]:
    """A name, a path or sha256:<prefix>; null is refused."""
    if value is None:
        raise Refused("null names nothing. Expected a name, a path or sha256:<prefix>.")
    return [text for text in texts(value) if text is not None]


def integers(value: object) -> Sequence[int]:
    """A whole number, a range such as 1-4, or several of them with commas."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, float) and value.is_integer():
        return (int(value),)
    if isinstance(value, str):
        if "," in value:
            return [number for part in value.split(",") for number in integers(part)]
        if found := _stepped(value):
            if any(not one.is_integer() for one in found):
                raise Refused(f"{value!r} holds numbers that are not whole: {', '.join(map(number, found[:6]))}.")
            return [int(one) for one in found]
        if match := _INTEGERS.fullmatch(value):
            first, last = int(match[1]), int(match[2])
            step = 1 if last >= first else -1
            if abs(last - first) >= MOST:
                raise Refused(f"{value!r} is {abs(last - first) + 1} values; a range has at most {MOST}.")
            return range(first, last + step, step)
        if _INTEGER.fullmatch(value):
            return (int(value),)
    raise Refused(f"{value!r} is not a whole number, nor a range such as 1-4.")


def sides(value: object) -> Sequence[int | None]:
    """Whole numbers as `integers` takes them; null or "none" is none."""
    return (None,) if value in (None, "none", "null") else integers(value)


def is_finite(value: object) -> TypeGuard[int | float]:
    """Whether the value is a number that a float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def numbers(value: object) -> Sequence[float]:
    """A number, `0..1/5` (five values evenly from 0 to 1), or several of them with commas."""
    if is_finite(value):
        return (float(value) + 0.0,)  # -0 is 0 in a key too
    if isinstance(value, str):
        if "," in value:
            return [number for part in value.split(",") for number in numbers(part)]
        try:
            if match := _NUMBERS.fullmatch(value):
                return _evenly(float(match[1]), float(match[2]), int(match[3]))
            if found := _stepped(value):
                return found
            if abs(float(value)) < float("inf"):
                return (float(value) + 0.0,)
        except ValueError:
            pass
    raise Refused(
        f"{value!r} is not a number, nor numbers such as 0..1/5 (five values from 0 to 1), 0..1 step 0.25, 1-10 (+2) or 1-10 [5]."
    )


def _evenly(first: float, last: float, count: int) -> list[float]:
    if not 2 <= count <= MOST:
        raise Refused(f"{first:g}..{last:g}/{count}: the count after / is from 2 to {MOST}.")
    return [round(first + (last - first) * index / (count - 1), 10) for index in range(count)]  # 0.30000000000000004 is 0.3


def _stepped(value: str) -> list[float]:
    """The numbers of A1111's `1-10 (+2)` and `1-10 [5]`, and of `0..1 step 0.25`, up to the end or before it; none of another text."""
    if match := _COUNTED.fullmatch(value):
        return _evenly(float(match[1]), float(match[2]), int(match[3]))
    match = _STEPPED.fullmatch(value)
    if match is None:
        return []
    first, last, step = float(match[1]), float(match[2]), float(match[3] or match[4])
    count = (last - first) / step if step else -1.0
    if not 0 <= count < MOST:
        raise Refused(f"{value!r}: a step of {number(step)} does not lead from {number(first)} to {number(last)} in at most {MOST} values.")
    return [round(first + step * index, 10) for index in range(int(count + 1e-9) + 1)]


def sizes(value: object) -> Sequence[tuple[int, int]]:
    """(width, height) in pixels of 64, "96x64" or [96, 64]."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ((value, value),)
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return ((int(match[1]), int(match[2] or match[1])),)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2 and all(type(side) is int for side in value):
        return ((value[0], value[1]),)
    raise Refused(f"{value!r} is not a size. Expected 64, 96x64 (width x height) or [96,64].")


def read_size(value: object) -> tuple[int | None, int | None]:
    """(width, height) in pixels of one size; (None, None) of None."""
    if value is None or value == (None, None):
        return (None, None)
    ((width, height),) = sizes(value)
    return (width, height)


def number(value: float) -> str:
    """A number as a person writes it, and exact: 1, 0.6, 0.05."""
    return short if float(short := f"{value:g}") == value else repr(value)


def spell(value: Any) -> str | None:
    """A setting's value for a person; None where it is not given."""
    if value is None or value == ():
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)


def spell_side(value: int | None) -> str:
    """A side in pixels as the label of an axis."""
    return "none" if value is None else str(value)


def spell_text(value: str | None) -> str:
    """A text as the label of an axis: blank ones in quotes."""
    return "none" if value is None else value if value.strip() else f"“{value}”"


def spell_or_own(value: object) -> str:
    """A name as the label of an axis; null is what the base has."""
    return "base's own" if value is None else str(value)


def spell_size(value: tuple[int, int]) -> str:
    """64x64, width first."""
    return f"{value[0]}x{value[1]}"


def every(value: object) -> list[object]:
    """The values of a setting that is one value or a list of them."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
