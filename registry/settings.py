"""The fields of a job's settings: their meaning, whole sections built from the options of tables, values as a command line has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field, fields, make_dataclass
from typing import Any, Protocol

from registry.options import Option

SPECIAL = re.compile(r"[\\()\[\]{}:=, \t]")  # signs of Hydra's grammar, escaped by a backslash outside of quotes


def setting(default: Any, meaning: str, *, prose: bool = False) -> Any:
    """A field with its default (or a function that makes it) and its meaning; `prose`: a list of sentences, which hold commas."""
    kind = "default_factory" if callable(default) else "default"
    return field(metadata={"help": meaning, "prose": prose}, **{kind: default})


def word(default: str | None, meaning: str, *, among: Iterable[str] = ()) -> Any:
    """A field that names an entry of a table, not a free text: a sweep may list several with commas. `among`: the names to choose from."""
    return field(default=default, metadata={"help": meaning, "word": True, "choices": tuple(among)})


class HasOptions(Protocol):
    """An entry of a table."""

    @property
    def options(self) -> Mapping[str, Option]: ...


def params_schema(
    name: str, tables: Iterable[Mapping[str, HasOptions]], *, module: str, besides: Collection[str] = (), typed: bool = True
) -> type:
    """A dataclass with a field for each option of the tables' entries, null being the entry's own default.

    Raises ValueError when two tables have an option of one name: a value could not say which of the two it is for.
    """
    rows: dict[str, list[tuple[str, Option]]] = {}
    homes: dict[str, int] = {}
    for number, table in enumerate(tables):
        for owner, entry in table.items():
            for option in entry.options.values():
                if option.name in besides:
                    continue
                if homes.setdefault(option.name, number) != number:
                    raise ValueError(f"{name}: {rows[option.name][0][0]} and {owner} have an option {option.name!r} each. Rename one.")
                rows.setdefault(option.name, []).append((owner, option))
    return make_dataclass(
        name,
        [
            (option, _shared_hint([one for _, one in owners]) if typed else Any, field(default=None, metadata=_metadata(owners, typed)))
            for option, owners in rows.items()
        ],
        kw_only=True,
        namespace={"__doc__": "Options of the chosen entries; null is the entry's own default.", "__module__": module},
    )


def _shared_hint(options: list[Option]) -> Any:
    """The type that a setting for several entries may have."""
    hints = {str(option.hint): option.hint for option in options}
    return next(iter(hints.values())) if len(hints) == 1 else Any


def _metadata(owners: list[tuple[str, Option]], typed: bool) -> dict[str, Any]:
    """Help as '<entry>: <meaning> (default 5)', one for each meaning; untyped schemas show the meaning of the last entry alone."""
    if not typed:
        return {"help": owners[-1][1].meaning, "word": False}
    by_text: dict[str, list[str]] = {}
    for owner, option in owners:
        shown = list(option.default) if isinstance(option.default, tuple) else option.default
        default = "" if option.default is None else f" (default {str(shown).lower() if isinstance(shown, bool) else shown})"
        by_text.setdefault(f"{option.meaning}{default}", []).append(owner)
    text = "; ".join(f"{', '.join(names)}: {words}" for words, names in by_text.items())
    choices = dict.fromkeys(choice for _, option in owners for choice in option.choices)
    return {"help": text, "word": bool(choices), "choices": tuple(choices)}


def given_params(params: Any) -> dict[str, Any]:
    """The options of a filled schema that are not null, lists as tuples."""
    values = {item.name: getattr(params, item.name) for item in fields(params)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None}


# --- a value on a command line


def spelled(value: Any) -> str:
    """A value as an override of Hydra has it; a text as it is, for loraloom takes those literally."""
    if isinstance(value, str):
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        return _quoted(value) if value == "null" or quoted else value
    return spelled_inside(value)


def spelled_inside(value: Any) -> str:
    """A value inside a list or a dict: texts in quotes."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(str(key))}:{spelled_inside(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spelled_inside, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _key(text: str) -> str:
    """A key of a dict, which Hydra takes without quotes alone."""
    return SPECIAL.sub(r"\\\g<0>", text)


def _quoted(text: str) -> str:
    """Hydra's double quotes: backslashes escape before a quote and at the end, and before ${ (OmegaConf)."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)(\"|\Z)", lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text)
    return f'"{text}"'
