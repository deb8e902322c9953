"""Names: tables that register by decorator and answer typos, and the names that torch has for devices."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeVar

from registry.errors import UnknownName

DEVICES = "auto, cpu, mps, cuda, xpu, cuda:NUMBER or xpu:NUMBER"
DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")  # of settings; auto is the best one there is

T = TypeVar("T")
Item = TypeVar("Item")


def suggest(name: str, known: Iterable[str], *, listed: int | None = None, whole: bool = False) -> str:
    """The words that help after a mistyped name: the nearest known ones in any case, else all of them, or their number above `listed`.

    `whole`: all of them even so, after the nearest ones.
    """
    known = sorted(known)
    near = get_close_matches(name.casefold(), {one.casefold() for one in known}, n=3, cutoff=0.6)
    close = [one for folded in near for one in known if one.casefold() == folded][:3]
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?" + (f" There are: {', '.join(known)}." if whole else "")
    if listed is not None and len(known) > listed:
        return f"None of the {len(known):,} known names is like it."
    return f"Known: {', '.join(known)}." if known else "There are none."


class Table(dict[str, T]):
    """A dict from names to items of one kind. `table.add(name)` is a decorator; a missing name raises UnknownName."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def add(self, name: str) -> Callable[[Item], Item]:
        """Keep the decorated item under the name; its own type stays visible to callers."""

        def keep(item: Item) -> Item:
            if name in self:
                raise ValueError(f"There are two {self.kind}s named {name!r}.")
            self[name] = item  # type: ignore[assignment]  # Item is a T: no bound can say so
            return item

        return keep

    def __missing__(self, name: str) -> T:
        raise UnknownName(f"Unknown {self.kind} {name!r}. {suggest(name, self)}")
