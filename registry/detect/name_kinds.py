"""A function of a name whose results are few (kinds of names), asked for thousands of names at the speed of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Kind(Generic[T]):
    """One result of the function; two kinds are equal only as objects, so that they are counted and compared fast."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


class NameKinds(dict[str, Kind[T]]):
    """Name -> the Kind of its result, of which equal results share one. Names beyond `most` begin anew."""

    def __init__(self, function: Callable[[str], T], *, most: int = 65536) -> None:
        self._function, self._most = function, most
        self._kinds: dict[Any, Kind[T]] = {}  # files of one family share their names

    def __missing__(self, name: str) -> Kind[T]:
        value = self._function(name)
        if len(self) >= self._most:
            self.forget()
        return self.setdefault(name, self._kinds.setdefault(value, Kind(value)))

    def forget(self) -> None:
        """Forget all: the function gives other results now."""
        self.clear()
        self._kinds.clear()

    def of(self, names: Iterable[str]) -> list[Kind[T]]:
        """The Kind of each name."""
        return [*map(self.__getitem__, names)]

    def distinct(self, names: Iterable[str]) -> list[T]:
        """The results, each once, in the order of the first name of each."""
        return [kind.value for kind in dict.fromkeys(map(self.__getitem__, names))]
