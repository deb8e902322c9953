"""The settings of a run that differ from the defaults, and the command that starts it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from train.config import TrainConfig, dotted_names, get

SPECIAL = re.compile(r"[\\()\[\]{}:=, \t]")  # signs of Hydra's grammar, escaped by a backslash outside of quotes
LEFT_OUT = ("resume", "dry_run")


def changed_settings(config: TrainConfig) -> dict[str, Any]:
    """Dotted name -> value of what differs from the defaults; what a plan filled in for null is among them."""
    plain = TrainConfig()
    pairs = ((name, _value(get(config, name)), _value(get(plain, name))) for name in dotted_names() if name not in LEFT_OUT)
    return {name: value for name, value, default in pairs if value != default}


def command_of(config: TrainConfig) -> str:
    """The command line that gives these settings, for a shell."""
    words = (f"{name}={spelled(value)}" for name, value in changed_settings(config).items())
    return " ".join(["loraloom train", *map(shlex.quote, words)])


def spelled(value: Any) -> str:
    """A value as an override of Hydra has it; a text as it is, for loraloom takes those literally."""
    if isinstance(value, str):
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        return _quoted(value) if value == "null" or quoted else value
    return _inside(value)


def _inside(value: Any) -> str:
    """A value inside a list or a dict: texts in quotes."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(str(key))}:{_inside(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_inside, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _key(text: str) -> str:
    """A key of a dict, which Hydra takes without quotes alone."""
    return SPECIAL.sub(r"\\\g<0>", text)


def _quoted(text: str) -> str:
    """Hydra's double quotes: backslashes escape before a quote and at the end, and before ${ (OmegaConf)."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)(\"|\Z)", lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text)
    return f'"{text}"'


def _value(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value


def rows_of(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, value as it is written) of each setting."""
    for name, value in settings.items():
        yield name, value if isinstance(value, str) else _inside(value)
