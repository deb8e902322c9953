"""Plain values out of JSON and YAML that others wrote: one exception for whatever is wrong, and texts that can be stored and printed."""

from __future__ import annotations

import json
import re
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair: valid in JSON's escapes, in no encoding
ESCAPED = re.compile(r"\\[uU](0000)?[dD][89a-fA-F]")
VALUES_LIMIT = 200_000  # of a YAML text, its aliases counted as often as they are used


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text (UTF-8), lone surrogates as U+FFFD. Raises ValueError for whatever is wrong with it."""
    try:
        whole = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = json.loads(whole)
        odd = ("\\" in whole and ESCAPED.search(whole)) or (not whole.isascii() and SURROGATE.search(whole))
        return _storable(value) if odd else value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def from_yaml(text: str) -> Any:
    """The value of a YAML text by the safe loader, lone surrogates as U+FFFD. Raises ValueError for whatever is wrong with it.

    Tags other than YAML's own are refused, and so are texts whose aliases make more than VALUES_LIMIT values.
    """
    import yaml

    try:
        value = yaml.safe_load(text)
        _check_size(value)
        return _storable(value) if ESCAPED.search(text) or SURROGATE.search(text) else value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError:
        raise
    except (yaml.YAMLError, AttributeError, TypeError, LookupError, ArithmeticError) as error:  # the last four: its constructors' own
        raise ValueError(str(error) or type(error).__name__) from error


def storable(text: str) -> str:
    """The text with each lone surrogate as U+FFFD."""
    return SURROGATE.sub("\ufffd", text)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value


def _check_size(value: Any) -> None:
    """Raise ValueError for a value that contains itself, or that aliases make larger than any settings are."""
    sizes: dict[int, int] = {}  # by identity: an alias is the same object

    def size(one: Any) -> int:
        if not isinstance(one, (dict, list, set, tuple)):
            return 1
        if id(one) not in sizes:
            sizes[id(one)] = VALUES_LIMIT + 1  # met again while it is counted: it contains itself
            inner = [*one.keys(), *one.values()] if isinstance(one, dict) else one
            sizes[id(one)] = 1 + sum(map(size, inner))
        return sizes[id(one)]

    if size(value) > VALUES_LIMIT:
        raise ValueError(f"with its aliases it has more than {VALUES_LIMIT:,} values")
