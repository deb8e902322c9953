"""The table of preparations: one function for each way to make a ControlNet's hint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from registry.names import Table
from registry.options import Option, read_options

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class NetworkKind:
    """The networks that a preparation runs, by path. `faults` reads no weights; `open(path, device)` gives what the function takes.

    `others` are networks that options name beside `model`, by the option; `join(network, others)` puts those that are given to it.
    """

    faults: Callable[[Path], list[str]]
    files: Callable[[Path], list[Path]]  # the files that its answer depends on
    open: Callable[[Path, str], Any]
    default: Callable[[], Path | None]  # where no `model` is given
    expected: str
    others: Mapping[str, NetworkKind] = field(default_factory=dict)
    join: Callable[[Any, Mapping[str, Any]], Any] = lambda network, _others: network


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A function (image of the drawing's size, options) -> hint of that size.

    One that reads keypoints is given Figures and the size in place of the image; one with a `network` is given the open network as its
    second argument. `note` is what a person should know of a hint made with these options ("": nothing); `check` is what is wrong with its
    options together; `refuse` is why an image cannot be prepared so, or None.
    """

    name: str
    function: Callable[..., Image]
    options: Mapping[str, Option]
    keypoints: bool = False
    network: NetworkKind | None = None
    note: Callable[[Mapping[str, Any]], str] = lambda values: ""
    check: Callable[[Mapping[str, Any]], str | None] = lambda values: None
    refuse: Callable[[Image], str | None] = lambda image: None

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All its options: the value given, else the default."""
        return {name: given.get(name, option.default) for name, option in self.options.items()}


class Preparations(Table[Preparation]):
    """A Table of functions: `@PREPARE.add(name)` keeps the function and reads its options; other facts of its Preparation go with it."""

    def add(self, name: str, **facts: Any) -> Callable[[Item], Item]:
        """Keep the decorated function under the name; its own type stays visible to callers."""
        keep = super().add(name)

        def read(function: Item) -> Item:
            assert callable(function)
            keep(Preparation(name=name, function=function, options=read_options(function), **facts))
            return function

        return read


PREPARE = Preparations("preparation")
