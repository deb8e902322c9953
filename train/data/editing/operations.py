"""Operations on captions: each is a function of the text, and gives the text itself where nothing is to be changed.

Tags are what lies between commas, as sd-scripts counts them; capitals and the width of spaces do not tell two tags apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from registry.errors import Faults, Refused


class Operation(Protocol):
    """What is done to a caption."""

    def __call__(self, caption: str) -> str: ...

    def fault(self) -> str | None:
        """Why it cannot be done to any caption, or None."""
        ...

    def words(self, *, regex: bool) -> list[str]:
        """What says it on the command line; `regex`: --regex is said, once for all."""
        ...


@dataclass(frozen=True)
class Replace:
    """`old` replaced by `new` wherever it is; with `regex` they are a pattern and a template of Python's re."""

    old: str
    new: str
    regex: bool = False

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.old)

    def fault(self) -> str | None:
        if not self.old:
            return "--replace: the text that is looked for is empty."
        if not self.regex:
            return None
        try:
            self._pattern.sub(self.new, "")  # the template is parsed, whether anything is found or not
        except (re.error, IndexError, RecursionError, OverflowError) as error:
            return f"--replace {self.old!r} {self.new!r}: this is no regular expression of Python ({error})."
        return None

    def __call__(self, caption: str) -> str:
        return self._pattern.sub(self.new, caption) if self.regex else caption.replace(self.old, self.new)

    def words(self, *, regex: bool) -> list[str]:
        if self.regex or not regex:
            return ["--replace", self.old, self.new]
        return ["--replace", _undashed(re.escape(self.old)), _undashed(self.new.replace("\\", r"\\"))]


def _undashed(text: str) -> str:
    """A pattern or template that no option is taken for."""
    text = text.removeprefix("\\") if text.startswith(r"\-") else text
    return rf"\055{text[1:]}" if text.startswith("-") else text


@dataclass(frozen=True)
class Add:
    """Tags put in front, or at the end; those that a caption has stay where they are."""

    tags: str
    at_end: bool = False

    def fault(self) -> str | None:
        return None if tags_of(self.tags) else "--add: the tag is empty."

    def __call__(self, caption: str) -> str:
        own = tags_of(caption)
        known = set(map(_key, own))
        new = [tag for tag in tags_of(self.tags) if _key(tag) not in known]
        return _joined(caption, [*own, *new] if self.at_end else [*new, *own])

    def words(self, *, regex: bool) -> list[str]:
        return ["--add", _word(self.tags)]


@dataclass(frozen=True)
class Remove:
    """Tags taken out."""

    tags: str

    def fault(self) -> str | None:
        return None if tags_of(self.tags) else "--remove: the tag is empty."

    def __call__(self, caption: str) -> str:
        gone = set(map(_key, tags_of(self.tags)))
        return _joined(caption, [tag for tag in tags_of(caption) if _key(tag) not in gone])

    def words(self, *, regex: bool) -> list[str]:
        return ["--remove", _word(self.tags)]


@dataclass(frozen=True)
class Rename:
    """A tag replaced by others in its place; those of them that a caption has already are not put in twice."""

    old: str
    new: str

    def fault(self) -> str | None:
        if len(tags_of(self.old)) != 1 or not tags_of(self.new):
            return f"--rename {self.old!r} {self.new!r}: expected one tag, and what it is to be called."
        return None

    def __call__(self, caption: str) -> str:
        own, key = tags_of(caption), _key(self.old)
        if key not in map(_key, own):
            return caption
        others = {_key(tag) for tag in own if _key(tag) != key}
        new = [tag for tag in tags_of(self.new) if _key(tag) not in others]
        found: list[str] = []
        for tag in own:
            found += [tag] if _key(tag) != key else new
            new = new if _key(tag) != key else []
        return _joined(caption, found)

    def words(self, *, regex: bool) -> list[str]:
        return ["--rename", _word(self.old), _word(self.new)]


@dataclass(frozen=True)
class Deduplicate:
    """Each tag once, where it is first."""

    def fault(self) -> str | None:
        return None

    def __call__(self, caption: str) -> str:
        first: dict[str, str] = {}
        for tag in tags_of(caption):
            first.setdefault(_key(tag), tag)
        return _joined(caption, list(first.values()))

    def words(self, *, regex: bool) -> list[str]:
        return ["--dedupe"]


@dataclass(frozen=True)
class Sort:
    """Tags in alphabetical order."""

    def fault(self) -> str | None:
        return None

    def __call__(self, caption: str) -> str:
        return _joined(caption, sorted(tags_of(caption), key=lambda tag: (_key(tag), tag)))

    def words(self, *, regex: bool) -> list[str]:
        return ["--sort"]


def check(operations: Sequence[Operation]) -> None:
    """Raise Refused or Faults for what cannot be done to any caption."""
    faults = [fault for operation in operations if (fault := operation.fault())]
    if faults:
        raise Refused(faults[0]) if len(faults) == 1 else Faults("This edit cannot be made:", faults)


def applied(operations: Iterable[Operation], text: str, *, lines: bool) -> str:
    """The text after all operations; the space around it stays. `lines`: each line that is not empty is a caption of its own."""
    parts = text.splitlines(keepends=True) if lines else [text]
    return "".join(_applied(operations, part) if part.strip() or not lines else part for part in parts)


def _applied(operations: Iterable[Operation], text: str) -> str:
    body = text.strip()
    begin = text.find(body)
    edited = body
    for operation in operations:
        edited = operation(edited)
    return text if edited == body else text[:begin] + edited.strip() + text[begin + len(body) :]


def words_of(operations: Sequence[Operation]) -> list[str]:
    """What says them on the command line, where --regex is for every replacement and --end for every tag that is added."""
    replaces = [one for one in operations if isinstance(one, Replace)]
    regex = any(one.regex or one.old.startswith("-") or one.new.startswith("-") for one in replaces)
    at_end = any(isinstance(one, Add) and one.at_end for one in operations)
    return [*(word for one in operations for word in one.words(regex=regex)), *["--regex"] * regex, *["--end"] * at_end]


def tags_of(caption: str) -> list[str]:
    """The tags of a caption, spaces made one and empty ones left out."""
    return [tag for part in caption.split(",") if (tag := " ".join(part.split()))]


def _key(tag: str) -> str:
    return " ".join(tag.split()).casefold()


def _joined(caption: str, tags: list[str]) -> str:
    """The caption of these tags: as it was where they are its own in their order."""
    return caption if tags == tags_of(caption) else ", ".join(tags)


def _word(text: str) -> str:
    """Tags as a word that no option is taken for: the space in front is none of theirs."""
    return f" {text}" if text.startswith("-") else text
