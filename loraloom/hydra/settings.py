"""The settings of a job's dataclass: dotted names, types, meanings, and the nearest one to a mistyped name.

A field's meaning is `metadata={"help": ...}`. A `str` setting is a text (a prompt, a name, a path, a reference) and is taken as
typed, unless `metadata={"word": True}` says that it names an entry of a table, which a sweep may list with commas.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from difflib import SequenceMatcher, get_close_matches
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One leaf of a job's schema."""

    name: str  # dotted: lora.rank
    kinds: tuple[Any, ...]  # the types of its annotation, without None
    optional: bool  # null is a value
    word: bool  # a text that names an entry of a table
    prose: bool  # its texts are sentences, which hold commas
    help: str
    choices: tuple[str, ...] = ()  # names that are known for it
    closed: bool = False  # no other value goes

    @property
    def is_text(self) -> bool:
        return self.kinds == (str,)

    @property
    def is_open(self) -> bool:
        """Any value goes; its reader checks it."""
        return self.kinds == (Any,)

    @property
    def is_plain(self) -> bool:
        """One number, switch or choice; neither a text nor a list nor open."""
        return not (self.is_open or any(kind is str or get_origin(kind) is list for kind in self.kinds))

    @property
    def expected(self) -> str:
        """What a person should give, in words."""
        words = [_in_words(kind) for kind in self.kinds]
        return " or ".join([*words, "null"] if self.optional and not self.is_open else words)


@dataclass(frozen=True)
class Schema:
    """All settings of a job, in the order of its dataclass, and their sections."""

    settings: dict[str, Setting]
    sections: tuple[str, ...]

    def nearest(self, name: str, *, groups: Iterable[str] = ()) -> str:
        """The words that help after a name that is no setting: 'rank' is answered 'lora.rank'."""
        section, _, last = name.rpartition(".")
        inside = [one for one in self.settings if section and one.startswith(f"{section}.")]
        known = [*self.settings] if section else [*self.settings, *self.sections, *groups]
        same_end = [one for one in known if one.rpartition(".")[2] == last]
        close = same_end or (_close_ends(last, inside) if inside else _closest(name, known) or _close_ends(last, known))
        if close:
            return f"Did you mean {' or '.join(map(repr, dict.fromkeys(close)))}?"
        return f"Known: {', '.join(inside)}." if inside else "--help lists them all."


def read_schema(schema: type) -> Schema:
    """The settings of a dataclass, nested ones with dotted names."""
    settings: dict[str, Setting] = {}
    sections: list[str] = []
    _walk(schema, "", settings, sections)
    return Schema(settings, tuple(sections))


def _walk(schema: type, prefix: str, settings: dict[str, Setting], sections: list[str]) -> None:
    hints = get_type_hints(schema)
    for item in fields(schema):
        name, hint = f"{prefix}{item.name}", hints[item.name]
        if isinstance(hint, type) and is_dataclass(hint):
            sections.append(name)
            _walk(hint, f"{name}.", settings, sections)
            continue
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        settings[name] = Setting(
            name=name,
            kinds=tuple(kind for kind in kinds if kind is not NoneType),
            optional=NoneType in kinds or hint is Any,
            word=bool(item.metadata.get("word")),
            prose=bool(item.metadata.get("prose")),
            help=str(item.metadata.get("help", "")),
            choices=_choices(kinds) or tuple(item.metadata.get("choices", ())),
            closed=bool(_choices(kinds)),
        )


def _choices(kinds: Iterable[Any]) -> tuple[str, ...]:
    """All values of a switch or an Enum, as a command line has them; none of other types."""
    named = [kind for kind in kinds if kind is not NoneType]
    if len(named) != 1 or not isinstance(named[0], type):
        return ()
    return ("true", "false") if named[0] is bool else tuple(named[0].__members__) if issubclass(named[0], Enum) else ()


def _closest(name: str, known: Iterable[str]) -> list[str]:
    """The nearest name, and what is as near to within a tenth."""
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    likeness = [SequenceMatcher(None, one, name).ratio() for one in close]
    return [one for one, ratio in zip(close, likeness, strict=True) if ratio > max(likeness) - 0.1]


def _close_ends(last: str, known: Iterable[str]) -> list[str]:
    ends: dict[str, list[str]] = {}
    for name in known:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    return [name for end in get_close_matches(last, ends, n=2, cutoff=0.7) for name in ends[end]]


def _in_words(kind: Any) -> str:
    simple = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Any: "a value"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(kind.__members__)
    if get_origin(kind) is list:
        inner = {int: "whole numbers", float: "numbers", str: "texts"}.get(get_args(kind)[0], "values")
        return f"a list of {inner}, [...]"
    return simple.get(kind, getattr(kind, "__name__", str(kind)))
