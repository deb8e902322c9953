"""What becomes of sd-scripts' arguments: our settings, what is ignored and why, notes, faults."""

import ast
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

Count = Callable[[int, float], dict[str, Any]]  # (steps of the run, epochs of the run) -> settings


@dataclass
class Converted:
    """The settings of `loraloom train` that mean the same, in the order in which they were found."""

    chosen: Collection[str] = ()  # settings that the command line gives itself
    settings: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # setting -> the argument it comes from
    ignored: dict[str, str] = field(default_factory=dict)  # argument -> why it has no effect on the result
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    later: list[Count] = field(default_factory=list)  # settings that need the number of steps

    def set(self, name: str, value: Any, source: str) -> None:
        """A setting; nothing where the command line has it."""
        if name not in self.chosen:
            self.settings[name] = value
            self.sources[name] = source

    def fault(self, text: str, *, unless: Collection[str] = ()) -> None:
        """What cannot be trained as the file has it; no fault where the command line gives one of these settings."""
        if not set(unless) & set(self.chosen):
            self.faults.append(text)


def pairs(name: str, items: Any, to: Converted) -> dict[str, Any]:
    """["a=1", "b=(0.9, 0.99)"] as values, texts where they are no Python literals."""
    found: dict[str, Any] = {}
    for item in items or []:
        key, equals, text = str(item).partition("=")
        if not equals:
            to.fault(f"{name} {item!r}: NAME=VALUE is expected.")
            continue
        try:
            found[key.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            found[key.strip()] = text.strip()
    return found
