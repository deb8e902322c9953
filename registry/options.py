"""The options of a table's functions: their keyword-only parameters, read from the signature.

    Gamma = Annotated[float, Meaning("SNR above which the weight no longer grows", 0.0, open_least=True)]

    @WEIGHTINGS.add("min_snr")
    def min_snr(levels: Levels, *, gamma: Gamma = 5.0) -> Tensor: ...

Types, ranges, answers to typing errors, the settings of a job and their help all come from that signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from registry.names import Table, suggest

F = TypeVar("F", bound=Callable[..., Any])
Item = TypeVar("Item")


@dataclass(frozen=True)
class Meaning:
    """What an option means, and the range of its values."""

    text: str
    least: float | None = None
    most: float | None = None
    open_least: bool = False  # the least value itself is not allowed
    each: str = ""  # what a list has a number for: "one a source"


@dataclass(frozen=True)
class Option:
    """One option. `kind` is float, int, bool, str (one of `choices`, any text without), tuple (numbers) or object (not checked)."""

    name: str
    kind: type
    default: Any
    meaning: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    open_least: bool = False
    optional: bool = False
    length: int | None = None  # of a tuple; None: any
    each: str = ""
    required: bool = False  # it has no default

    def fault(self, value: Any, where: str = "params.") -> str | None:
        """What is wrong with a value, or None. `where` stands before the option's name."""
        if value is None:
            return None if self.optional else f"{where}{self.name} must be {self.expected}, got null."
        return None if self._takes(value) else f"{where}{self.name} must be {self.expected}, got {value!r}."

    def _takes(self, value: Any) -> bool:
        if self.kind is not tuple:
            return self._takes_one(value)
        if not isinstance(value, (list, tuple)) or (self.length is not None and len(value) != self.length):
            return False
        return all(self._takes_one(number) for number in value)

    def _takes_one(self, value: Any) -> bool:
        if self.kind is object:
            return True
        if self.kind is str:
            return value in self.choices if self.choices else isinstance(value, str)
        if self.kind is bool:
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else (int, float)):
            return False
        low = self.least is None or (value > self.least if self.open_least else value >= self.least)
        return low and (self.most is None or value <= self.most) and value - value == 0  # finite

    @property
    def expected(self) -> str:
        """What to give, in words."""
        if self.choices:
            return " or ".join(self.choices)
        numbers = "numbers" if self.length is None else f"{self.length} numbers"
        words = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "a text",
            tuple: f"a list of {numbers}{self.each and f', {self.each}'}",
            object: "a value",
        }[self.kind]
        if self.least is not None and self.most is not None:
            words += f" from {'above ' if self.open_least else ''}{self.least:g} to {self.most:g}"
        elif self.least is not None:
            words += f" {'above' if self.open_least else 'of at least'} {self.least:g}"
        return words

    @property
    def hint(self) -> Any:
        """The type of its setting, null included."""
        if self.kind is object:
            return Any
        return list[float] | None if self.kind is tuple else self.kind | None


def read_options(function: Callable[..., Any], *, besides: Collection[str] = ()) -> dict[str, Option]:
    """The keyword-only parameters of a function but for `besides`, which its caller fills.

    Only their own annotations are resolved: those of tensors may be of modules that are not imported.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in besides
    }
    annotations = SimpleNamespace(__annotations__={name: parameter.annotation for name, parameter in parameters.items()})
    hints = get_type_hints(annotations, globalns=getattr(function, "__globals__", {}), localns={}, include_extras=True)
    return {name: option_of(name, hints[name], parameter.default) for name, parameter in parameters.items()}


def option_of(name: str, hint: Any, default: Any) -> Option:
    """The option of an annotation, such as `Annotated[float | None, Meaning(...)]`; a type that is not known is not checked."""
    meaning = Meaning("")
    if get_origin(hint) is Annotated:
        meaning = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Meaning)), meaning)
        hint = get_args(hint)[0]
    united = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [kind for kind in united if kind is not NoneType]
    first = kinds[0] if len(kinds) == 1 else object
    inner = get_args(first)
    choices = tuple(map(str, inner)) if get_origin(first) is Literal else ()
    is_tuple = get_origin(first) is tuple
    kind = str if choices else tuple if is_tuple else first if first in (float, int, bool, str) else object
    required = default is inspect.Parameter.empty
    return Option(
        name=name,
        kind=kind,
        default=None if required else default,
        meaning=meaning.text,
        choices=choices,
        least=meaning.least,
        most=meaning.most,
        open_least=meaning.open_least,
        optional=NoneType in united,
        length=len(inner) if is_tuple and Ellipsis not in inner else None,
        each=meaning.each,
        required=required,
    )


def option_faults(owner: str, options: Mapping[str, Option], given: Mapping[str, Any], *, where: str = "params.") -> list[str]:
    """What is wrong with the values given to `owner`, which has these options: each fault in a sentence."""
    found = []
    for name, value in given.items():
        if name not in options:
            found.append(f"{owner} has no option {name!r}. {suggest(name, options)}")
        elif fault := options[name].fault(value, where):
            found.append(fault)
    return found


@dataclass(frozen=True)
class Entry(Generic[F]):
    """A function of a table, with the options that its signature declares."""

    name: str
    function: F
    options: Mapping[str, Option]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All its options: the value given, else the default. What is given to other entries is left out."""
        return {name: given.get(name, option.default) for name, option in self.options.items()}


class OptionTable(Table[Entry[F]], Generic[F]):
    """A Table of functions: `@TABLE.add(name)` keeps the function and reads its options."""

    def add(self, name: str) -> Callable[[Item], Item]:
        """Keep the decorated function under the name; its own type stays visible to callers."""
        keep = super().add(name)

        def read(function: Item) -> Item:
            assert callable(function)
            keep(Entry(name, function, read_options(function)))
            return function

        return read
