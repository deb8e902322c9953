"""A plain value as the type of its setting: what a person may have meant by it, or the words for what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

NUMBER = re.compile(r"[+-]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][+-]?\d+)?")  # YAML 1.1 reads 1e3, without a dot, as a text
DIGITS = 400  # of a number's text at most: Python reads no int of more than 4,300
WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
SHOWN = 60  # characters of a value in a message


def fitted(value: Any, hint: Any) -> Any:
    """The value as `hint` has it: a number of a number's text, a float of a whole number. Raises ValueError with what was expected."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for choice in choices:
        found = _as(value, choice)
        if found is not NotImplemented:
            return found
    raise ValueError(f"must be {_words(hint)}, got {shown(value)}")


def mistyped(values: Mapping[str, Any], types: Mapping[str, Any]) -> list[str]:
    """A sentence for each value that is not of its name's type, as it is: 'tags' must be a list of texts, got 5. Other names pass."""
    return [
        f"{name!r} must be {_words(hint)}, got {shown(values[name])}"
        for name, hint in types.items()
        if name in values and not is_of(values[name], hint)
    ]


def is_of(value: Any, hint: Any) -> bool:
    """Whether the value is of a type, as it is: unions, lists, tuples, mappings and dataclasses are looked into; int counts as float."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return is_of(value, inner[0])
    if origin in (Union, UnionType):
        return any(is_of(value, one) for one in inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(is_of, value, inner))
    if origin in (list, tuple):
        return isinstance(value, origin) and (not inner or all(is_of(one, inner[0]) for one in value))
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(is_of(one, inner[0]) and is_of(item, inner[1]) for one, item in value.items())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if is_dataclass(hint):
        return isinstance(value, hint) and all(is_of(getattr(value, name), kind) for name, kind in _kinds(hint).items())  # type: ignore[arg-type]
    return not isinstance(hint, type) or isinstance(value, hint)


def is_number(value: object) -> bool:
    """Whether a value of a file is a finite number that a float holds; true and false are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


@cache
def _kinds(hint: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    found = get_type_hints(hint)
    return {one.name: found[one.name] for one in fields(hint)}


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
    if isinstance(value, str) and len(value) <= DIGITS and NUMBER.fullmatch(value):
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
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, inner))
    if origin in (dict, Mapping):
        return "an object" if inner[1] is Any else f"an object of {_several(inner[1])}"
    if origin in (list, tuple):
        return f"a list of {_several(inner[0])}" if inner else "a list"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(hint.__members__)
    return WORDS.get(hint, str(hint))


def _several(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_several, get_args(hint)))
    words = _words(hint)
    return re.sub("^an? ", "", words) + "s" if words.startswith("a") else words
