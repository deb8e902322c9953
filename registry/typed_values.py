"""A plain value as the type of its setting: what a person may have meant by it, or the words for what was expected."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")  # YAML 1.1 reads 1e3, without a dot, as a text
WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
SHOWN = 60  # characters of a value in a message


def fitted(value: Any, hint: Any) -> Any:
    """The value as `hint` has it: a number of a number's text, a float of a whole number. Raises ValueError with what was expected."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for choice in choices:
        found = _as(value, choice)
        if found is not NotImplemented:
            return found
    raise ValueError(f"must be {' or '.join(map(_words, choices))}, got {shown(value)}")


def is_of(value: Any, hint: Any) -> bool:
    """Whether the value is of a type, as it is: unions, lists, tuples, mappings and dataclasses are looked into; int counts as float."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return is_of(value, inner[0])
    if origin in (Union, UnionType):
        return any(is_of(value, one) for one in inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(is_of, value, inner))
    if origin in (list, tuple):
        return isinstance(value, origin) and (not inner or all(is_of(one, inner[0]) for one in value))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if is_dataclass(hint):
        kinds = get_type_hints(hint)
        return isinstance(value, hint) and all(is_of(getattr(value, one.name), kinds[one.name]) for one in fields(hint))  # type: ignore[arg-type]
    return not isinstance(hint, type) or isinstance(value, hint)


def is_number(value: object) -> bool:
    """Whether a value of a file is a finite number that a float holds; true and false are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def shown(value: Any) -> str:
    """A value in a message, cut to a line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _as(value: Any, hint: Any) -> Any:
    """The value as one type; NotImplemented where it is none of it."""
    if get_origin(hint) in (list, tuple):
        inner = get_args(hint)[0] if get_args(hint) else Any
        items = [_as(one, inner) for one in value] if isinstance(value, (list, tuple)) else [NotImplemented]
        return NotImplemented if NotImplemented in items else items
    if isinstance(hint, type) and issubclass(hint, Enum):
        if isinstance(value, hint):
            return value
        return hint.__members__.get(value, NotImplemented) if isinstance(value, str) else NotImplemented
    if hint in (int, float):
        return _number(value, hint)
    return value if hint not in WORDS or isinstance(value, hint) else NotImplemented


def _number(value: Any, hint: type) -> Any:
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value) if hint is float or not value.lstrip("+-").isdigit() else int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NotImplemented
    try:
        number = float(value)
    except OverflowError:
        return NotImplemented
    if hint is float:
        return number
    return int(value) if number.is_integer() and abs(number) < 2**64 else NotImplemented


def _words(hint: Any) -> str:
    if get_origin(hint) in (list, tuple):
        return "a list of " + _words(get_args(hint)[0]).removeprefix("a ") + "s" if get_args(hint) else "a list"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(hint.__members__)
    return WORDS.get(hint, str(hint))
