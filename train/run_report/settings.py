"""The settings of a run that differ from the defaults, and the command that starts it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from registry.printable import shell_line
from registry.settings import spelled, spelled_inside
from train.config import TrainConfig, dotted_names, get

LEFT_OUT = ("resume", "dry_run")


def changed_settings(config: TrainConfig) -> dict[str, Any]:
    """Dotted name -> value of what differs from the defaults; what a plan filled in for null is among them."""
    plain = TrainConfig()
    pairs = ((name, _value(get(config, name)), _value(get(plain, name))) for name in dotted_names() if name not in LEFT_OUT)
    return {name: value for name, value, default in pairs if value != default}


def command_of(config: TrainConfig) -> str:
    """The command line that gives these settings, for a shell."""
    return shell_line("loraloom", "train", *(f"{name}={spelled(value)}" for name, value in changed_settings(config).items()))


def _value(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value


def rows_of(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, value as it is written) of each setting."""
    for name, value in settings.items():
        yield name, value if isinstance(value, str) else spelled_inside(value)
