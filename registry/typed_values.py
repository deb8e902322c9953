"""A plain value as the type of its setting: what a person may have meant by it, or the words for what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    return _test_of(hint)(value)


Test = Callable[[Any], bool]


@cache  # a scan tests the record of every file
def _test_of(hint: Any) -> Test:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if origin is Annotated:
        return _test_of(inner[0])
    if origin in (Union, UnionType):
        whole = tuple(one for one in inner if one in (str, NoneType, bool))
        tests = tuple(_test_of(one) for one in inner if one not in whole)
        return lambda value: isinstance(value, whole) or any(test(value) for test in tests)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        tests = tuple(map(_test_of, inner))
        return lambda value: (
            isinstance(value, tuple) and len(value) == len(tests) and all(test(one) for test, one in zip(tests, value, strict=True))
        )
    if origin in (list, tuple):
        each = _test_of(inner[0] if inner else Any)
        if each is _is_text:
            return lambda value: isinstance(value, origin) and _are_texts(value)
        return lambda value: isinstance(value, origin) and all(map(each, value))
    if origin in (dict, Mapping):
        return _test_of_mapping(*inner)
    if hint is str:
        return _is_text
    if hint in (float, int):
        wanted = (int, float) if hint is float else (int,)
        return lambda value: isinstance(value, wanted) and not isinstance(value, bool)
    if is_dataclass(hint):
        return _test_of_fields(hint, tuple((name, _test_of(kind)) for name, kind in _kinds(hint).items()))  # type: ignore[arg-type]
    return (lambda value: isinstance(value, hint)) if isinstance(hint, type) else lambda value: True


def _test_of_fields(hint: Any, tests: Sequence[tuple[str, Test]]) -> Test:
    def test(value: Any) -> bool:
        if not isinstance(value, hint):
            return False
        for name, of_its_type in tests:  # noqa: SIM110 - a generator costs a scan a third more for every file
            if not of_its_type(getattr(value, name)):
                return False
        return True

    return test


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(values: Iterable[Any]) -> bool:
    return {str}.issuperset(map(type, values)) or all(map(_is_text, values))


def _test_of_mapping(key: Any, item: Any) -> Test:
    keys, items = _test_of(key), _test_of(item)
    if key is str and item is Any:
        return lambda value: isinstance(value, Mapping) and _are_texts(value)
    return lambda value: isinstance(value, Mapping) and all(map(keys, value)) and all(map(items, value.values()))


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
