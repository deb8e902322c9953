"""How a preparation is written: `edges`, or a record {name: edges, low: 50}; what is wrong with it, and what a hint's pixels depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from infer.draw.values import spell
from infer.hints.methods import PREPARE
from registry.errors import Refused
from registry.names import suggest
from registry.options import option_faults
from registry.references import NONE

EXPECTED = "Expected a name such as edges, a record {name: edges, low: 50, high: 150}, or none."


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """The name of a preparation, the options that were given, sorted, and the sha256 of its network once it was found."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    sha256: str | None = None

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={spell(value) or 'null'}" for name, value in self.options)])

    def values(self) -> dict[str, Any]:
        """All options, with defaults in the place of what was not given. Raises UnknownName."""
        return PREPARE[self.name].values(dict(self.options))

    def pinned(self) -> Any:
        """What the hint's pixels depend on, beside the image and its size; the plain name for edges as they always were."""
        if self == Prepare(name="edges"):
            return self.name
        values = {name: value for name, value in self.values().items() if name != "model"}
        if (kind := PREPARE[self.name].network) is not None:  # its networks are in the sha256; what is not given, older images have not
            values = {name: value for name, value in values.items() if name not in kind.others and value is not None}
        return [self.name, values, *([] if self.sha256 is None else [self.sha256])]

    def to_json(self) -> Any:
        """As it was written, and the network's sha256."""
        if self == Prepare(name=self.name):
            return self.name
        return {"name": self.name, **dict(self.options), **({"sha256": self.sha256} if self.sha256 is not None else {})}


def read_prepare(value: object) -> Prepare | None:
    """The preparation of a name or a record; None of None and "none". Names and options are checked by `prepare_faults`."""
    if value is None or isinstance(value, Prepare):
        return value
    if isinstance(value, str) and value.strip():
        return None if value.strip().lower() == NONE else Prepare(name=value.strip())
    if isinstance(value, Mapping) and isinstance(value.get("name"), str) and all(isinstance(name, str) for name in value):
        options = {name: one for name, one in value.items() if name not in ("name", "sha256")}
        if wrong := [name for name, one in options.items() if not (one is None or isinstance(one, str | int | float))]:
            raise Refused(f"prepare has {wrong[0]} {options[wrong[0]]!r}. Expected a number, a text, true, false or null.")
        return normalised(Prepare(name=value["name"].strip(), options=tuple(sorted(options.items())), sha256=value.get("sha256")))
    raise Refused(f"prepare is {value!r}. {EXPECTED}")


def normalised(prepare: Prepare) -> Prepare:
    """The same with numbers as their options have them, and without what is a default: equal hints are written alike."""
    if prepare.name not in PREPARE:
        return prepare
    known = PREPARE[prepare.name].options
    kept = []
    for name, value in prepare.options:
        if name in known and known[name].kind is float and type(value) is int and abs(value) < 1 << 53:
            value = float(value)
        if name not in known or known[name].required or value != known[name].default or type(value) is not type(known[name].default):
            kept.append((name, value))
    return replace(prepare, options=tuple(kept))


def prepare_faults(prepare: Prepare) -> list[str]:
    """What is wrong with a preparation's name and its options: each fault in a sentence; no file is looked at."""
    if prepare.name not in PREPARE:
        return [f"prepare is {prepare.name!r}. {suggest(prepare.name, PREPARE, whole=True)}"]
    known, given = PREPARE[prepare.name], dict(prepare.options)
    faults = option_faults(f"prepare: {prepare.name}", known.options, given, where=f"{prepare.name}: ")
    for option in known.options.values():
        if option.required and option.name not in given:
            faults.append(f"prepare: {prepare.name} needs {option.name}: {option.meaning}.")
    if not faults and (wrong := known.check(known.values(given))):
        faults.append(f"prepare: {prepare.name}: {wrong}.")
    return faults
