"""What a section of the Studio answers: a table of reads, writes, uploads and topics, and the typed values of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from registry.errors import Refused

if TYPE_CHECKING:
    from loraloom.studio.context import Studio

Kind = Literal["read", "write", "ask", "upload"]
LONGEST = 100_000  # characters of one text of a request


@dataclass(frozen=True)
class Sent:
    """Bytes as they are sent, with their media type; `lasting` ones have an address that changes with them, and may be cached."""

    data: bytes
    kind: str
    lasting: bool = False
    policy: str = ""  # the Content-Security-Policy of a page of its own, in place of the Studio's


@dataclass(frozen=True)
class SentFile:
    """A file as it is on the disk, sent by ranges where a browser asks for them."""

    path: Path
    kind: str
    lasting: bool = False


@dataclass(frozen=True)
class Ask:
    """The values of one request: of the address, or of the JSON object in its body. Getters raise Refused for what is not as expected."""

    values: Mapping[str, Any]
    body: bytes = b""  # of an upload

    def text(self, name: str, default: str | None = None) -> str:
        """A text; required unless there is a default."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or len(value) > LONGEST or "\0" in value:
            raise Refused(f"{name}: expected a text of at most {LONGEST:,} characters, got {_kind(value)}.")
        return value

    def optional(self, name: str) -> str | None:
        """A text, None where it is missing or null."""
        return None if self.values.get(name) is None else self.text(name)

    def number(self, name: str, default: int, *, low: int = 0, high: int = 1 << 53) -> int:
        """A whole number in a range, both ends included; in an address it is written in digits."""
        value = self.values.get(name, default)
        if isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit() and len(value) < 20:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refused(f"{name}: expected a whole number, {low} to {high}, got {value!r:.60}.")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; in an address `true` or `false`."""
        value = self.values.get(name, default)
        value = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise Refused(f"{name}: expected true or false, got {value!r:.60}.")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts, [] where it is missing."""
        value = self.values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and len(one) <= LONGEST and "\0" not in one for one in value):
            raise Refused(f"{name}: expected a list of texts, got {_kind(value)}.")
        return value


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "one with a NUL character" if len(value) <= LONGEST else f"one of {len(value):,}"
    return "nothing" if value is None else type(value).__name__


Answer = Callable[["Studio", Ask], object]  # JSON-able, Sent or SentFile
Snapshot = Callable[["Studio", str], object]  # of a topic's argument: JSON-able


@dataclass(frozen=True)
class Route:
    """One answer at an address below api/."""

    kind: Kind
    answer: Answer
    most: int  # bytes of the body


@dataclass
class Routes:
    """The answers of one section. `name` is its folder and the page's address #/name; `order` its place in the navigation."""

    name: str
    title: str
    order: int
    table: dict[str, Route] = field(default_factory=dict)
    topics: dict[str, Snapshot] = field(default_factory=dict)

    def read(self, path: str) -> Callable[[Answer], Answer]:
        """Answer GET api/<path>: nothing is changed."""
        return self._added(path, "read", 0)

    def write(self, path: str, *, most: int = 1 << 20) -> Callable[[Answer], Answer]:
        """Answer POST api/<path> with a JSON object of at most `most` bytes; refused where the Studio is read-only."""
        return self._added(path, "write", most)

    def ask(self, path: str, *, most: int = 1 << 20) -> Callable[[Answer], Answer]:
        """Answer POST api/<path> where nothing is changed, as a plan: for values too long for an address. Allowed when read-only."""
        return self._added(path, "ask", most)

    def upload(self, path: str, *, most: int) -> Callable[[Answer], Answer]:
        """Answer POST api/<path> with the bytes of one file in Ask.body (values in the address); changes nothing that lasts."""
        return self._added(path, "upload", most)

    def topic(self, name: str) -> Callable[[Snapshot], Snapshot]:
        """A value that pages watch as `name` or `name:argument`: computed about once a second while one does, sent when it changed."""

        def add(snapshot: Snapshot) -> Snapshot:
            if name in self.topics:
                raise ValueError(f"two topics {name!r}")
            self.topics[name] = snapshot
            return snapshot

        return add

    def _added(self, path: str, kind: Kind, most: int) -> Callable[[Answer], Answer]:
        def add(answer: Answer) -> Answer:
            if path in self.table:
                raise ValueError(f"two routes {path!r}")
            self.table[path] = Route(kind, answer, most)
            return answer

        return add


def sections() -> list[Routes]:
    """The sections, in the order of the navigation: every folder beside this file with a routes.py that has ROUTES."""
    from importlib import import_module
    from pkgutil import iter_modules

    from loraloom import studio

    found: Iterable[Any] = (
        import_module(f"{studio.__name__}.{module.name}.routes")
        for module in iter_modules(studio.__path__)
        if module.ispkg and any((Path(folder) / module.name / "routes.py").is_file() for folder in studio.__path__)
    )
    return sorted((module.ROUTES for module in found), key=lambda routes: routes.order)
