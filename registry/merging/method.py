"""What a merge method is: one function whose keyword-only parameters are its options, read from the signature.

    @merge_method("weighted_sum", sources=2)
    def weighted_sum(a: Tensor, b: Tensor, *, alpha: Alpha = 0.5) -> Tensor: ...

The tensors it gets are fp32 (or fp64) chunks of one key, all from the same place; a method that must know the whole tensor
first (its length, its k-th largest value) has a `measure`, whose answer comes to it as `known`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from registry.names import Table
from registry.options import Meaning, Option, option_faults, read_options

if TYPE_CHECKING:
    from torch import Tensor


Alpha = Annotated[float, Meaning("0 is the first source, 1 the second; add_difference: how much of the difference is added")]
Density = Annotated[float, Meaning("share of each source's values that is kept, by magnitude", 0.0, 1.0, True)]
Scale = Annotated[float, Meaning("what the merged difference is multiplied by before it is added to the base")]
Weights = Annotated[tuple[float, ...] | None, Meaning("one number a source (without the base); default: 1 for each", each="one a source")]
Seed = Annotated[int, Meaning("seed of the random choice; every key and source draws its own numbers from it", 0, 2**63 - 1)]


@dataclass(frozen=True)
class Place:
    """Where a chunk comes from: what a random method draws its numbers by."""

    key: str
    begin: int  # first element of the chunk in the flattened tensor
    width: int = 0  # length of the tensor's last axis, for methods that work row by row


class Chunks(Protocol):
    """One key of all sources, for a `measure`: chunks in their order, as often as asked."""

    @property
    def count(self) -> int:
        """Elements of the tensor."""

    @property
    def scratch(self) -> int:
        """Bytes that measuring may take."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape; its product is `count`."""

    def pick(self, *sources: int) -> Chunks:
        """The chunks of these sources alone."""

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]: ...


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
    placed: bool = False  # takes `at`: the Place of its chunk
    rowwise: bool = False  # chunks are whole rows of the last axis
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
            found.append(f"{self.name} takes {self.count_words} sources, got {sources}.")
        found += option_faults(self.name, self.options, params)
        for name, value in params.items():
            is_list = name in self.options and self.options[name].kind is tuple and not self.options[name].fault(value)
            if is_list and value is not None and len(value) != (wanted := sources - self.base):
                found.append(
                    f"params.{name} has {len(value)} numbers; {self.name} needs {wanted}, one a source{self.base * ' without the base'}."
                )
        if not found and self.check and (fault := self.check(**{**self.defaults(), **params})):
            found.append(fault)
        return found


METHODS: Table[Method] = Table("merge method")

FILLED = ("known", "at")  # parameters that the engine fills


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
                options=read_options(function, besides=FILLED),
                measure=measure,
                placed="at" in parameters,
                rowwise=rowwise,
                copies=copies,
                check=check,
            )
        )
        return function

    return keep
