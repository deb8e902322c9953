"""What a merge method is: one function whose keyword-only parameters are its options, read from the signature.

    @merge_method("weighted_sum", sources=2)
    def weighted_sum(a: Tensor, b: Tensor, *, alpha: Alpha = 0.5) -> Tensor: ...

The tensors it gets are fp32 (or fp64) pieces of one key, all from the same place; a method that must know the whole tensor
first (its length, its k-th largest value) has a `measure`, whose answer comes to it as `known`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from registry.names import Table, suggest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Says:
    """What an option means, and the range it may have."""

    meaning: str
    least: float | None = None
    most: float | None = None
    open_least: bool = False  # the least value itself is not allowed


Alpha = Annotated[float, Says("0 is the first source, 1 the second; add_difference: how much of the difference is added")]
Density = Annotated[float, Says("share of each source's values that is kept, by magnitude", 0.0, 1.0, True)]
Scale = Annotated[float, Says("what the merged difference is multiplied by before it is added to the base")]
Weights = Annotated[tuple[float, ...] | None, Says("one number a source (without the base); default: 1 for each")]
Seed = Annotated[int, Says("seed of the random choice; every key and source draws its own numbers from it", 0, 2**63 - 1)]


@dataclass(frozen=True)
class Place:
    """Where a piece comes from: what a random method draws its numbers by."""

    key: str
    begin: int  # first element of the piece in the flattened tensor
    width: int = 0  # length of the tensor's last axis, for methods that work row by row


class Pieces(Protocol):
    """One key of all sources, for a `measure`: pieces in their order, as often as asked."""

    @property
    def count(self) -> int:
        """Elements of the tensor."""

    @property
    def scratch(self) -> int:
        """Bytes that measuring may take."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape; its product is `count`."""

    def pick(self, *sources: int) -> Pieces:
        """The pieces of these sources alone."""

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]: ...


@dataclass(frozen=True)
class Option:
    """One option of a method. `kind` is float, int, bool, str (one of `choices`) or tuple (numbers, one a source)."""

    name: str
    kind: type
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    open_least: bool = False
    optional: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        if value is None:
            return None if self.optional else f"params.{self.name} must be {self.expected}, got null."
        numbers = list(value) if self.kind is tuple and isinstance(value, (list, tuple)) else [value]
        right = all(self._is_right(number) for number in numbers) and (self.kind is not tuple or isinstance(value, (list, tuple)))
        return None if right else f"params.{self.name} must be {self.expected}, got {value!r}."

    def _is_right(self, value: Any) -> bool:
        if self.kind is str:
            return value in self.choices
        if self.kind is bool:
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else (int, float)):
            return False
        low = self.least is None or (value > self.least if self.open_least else value >= self.least)
        return low and (self.most is None or value <= self.most) and value - value == 0  # finite

    @property
    def expected(self) -> str:
        """What a person should give, in words."""
        if self.kind is str:
            return " or ".join(self.choices)
        words = {bool: "true or false", int: "a whole number", float: "a number", tuple: "a list of numbers, one a source"}[self.kind]
        if self.least is not None and self.most is not None:
            words += f" from {'above ' if self.open_least else ''}{self.least:g} to {self.most:g}"
        elif self.least is not None:
            words += f" {'above' if self.open_least else 'of at least'} {self.least:g}"
        return words


@dataclass(frozen=True, kw_only=True)
class Method:
    """A merge method: the function, how many sources it takes (`most` None: any number), its options."""

    name: str
    apply: Callable[..., Tensor]
    least: int
    most: int | None
    base: bool  # the first source is the base the others are compared with
    options: Mapping[str, Option]
    measure: Callable[..., Any] | None = None
    placed: bool = False  # takes `at`: the Place of its piece
    rowwise: bool = False  # pieces are whole rows of the last axis
    copies: bool = False  # merges nothing: the first source as it is, changed by rules, dtype and shards alone
    holds: bool = False  # what it measures is as large as the tensor, so one key is measured at a time
    check: Callable[..., str | None] | None = None  # what is wrong with these options together

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.apply) or "").partition("\n")[0]

    @property
    def count_words(self) -> str:
        """'exactly 2', 'at least 2': how many sources it takes."""
        if self.most == self.least:
            return f"exactly {self.least}"
        return f"at least {self.least}" if self.most is None else f"{self.least} to {self.most}"

    def defaults(self) -> dict[str, Any]:
        """Option name -> default."""
        return {name: option.default for name, option in self.options.items()}

    def faults(self, params: Mapping[str, Any], sources: int) -> list[str]:
        """What is wrong with the options given and with the number of sources, all of it."""
        found = []
        if sources < self.least or (self.most is not None and sources > self.most):
            found.append(f"{self.name} takes {self.count_words} sources, {sources} were given.")
        for name, value in params.items():
            if name not in self.options:
                found.append(f"{self.name} has no option {name!r}. {suggest(name, self.options)}")
            elif fault := self.options[name].fault(value):
                found.append(fault)
            elif self.options[name].kind is tuple and value is not None and len(value) != (wanted := sources - self.base):
                found.append(
                    f"params.{name} has {len(value)} numbers; {self.name} needs {wanted}, one a source{self.base * ' without the base'}."
                )
        if not found and self.check and (fault := self.check(**{**self.defaults(), **params})):
            found.append(fault)
        return found


METHODS: Table[Method] = Table("merge method")

OURS = ("known", "at")  # parameters that the engine fills


def merge_method(
    name: str,
    *,
    sources: int | None = None,
    least: int = 2,
    base: bool = False,
    measure: Callable[..., Any] | None = None,
    rowwise: bool = False,
    copies: bool = False,
    check: Callable[..., str | None] | None = None,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function as a method. `sources` is their exact number; without it any number from `least` on."""

    def keep(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        parameters = inspect.signature(function).parameters
        METHODS.add(name)(
            Method(
                name=name,
                apply=function,
                least=sources if sources is not None else least,
                most=sources,
                base=base,
                options=_options(function),
                measure=measure,
                placed="at" in parameters,
                rowwise=rowwise,
                copies=copies,
                check=check,
            )
        )
        return function

    return keep


def _options(function: Callable[..., Tensor]) -> dict[str, Option]:
    """The keyword-only parameters, their annotations evaluated one by one: those of the tensors need not be known."""
    return {
        name: _option(name, eval(str(parameter.annotation), function.__globals__), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in OURS
    }


def _option(name: str, hint: Any, default: Any) -> Option:
    says = Says("")
    if get_origin(hint) is Annotated:
        hint, says = get_args(hint)[0], next(extra for extra in get_args(hint)[1:] if isinstance(extra, Says))
    kinds = [kind for kind in (get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)) if kind is not NoneType]
    optional = get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
    choices = tuple(map(str, get_args(kinds[0]))) if get_origin(kinds[0]) is Literal else ()
    kind = str if choices else tuple if get_origin(kinds[0]) is tuple else kinds[0]
    return Option(name, kind, default, says.meaning, choices, says.least, says.most, says.open_least, optional)
