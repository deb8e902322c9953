"""What an edit would change: shown first, then made by the journal. And which images it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import Faults, Refused
from registry.names import suggest
from registry.printable import as_lines, counted, some
from train.data.editing.changes import Change
from train.data.editing.entries import EditableSet, Entry
from train.data.editing.operations import tags_of
from train.data.wording import MOST


@dataclass(frozen=True)
class Shown:
    """A change for a person: a caption before and after, or what is done with a file."""

    image: str
    file: str
    what: str  # caption, mask, held out, trained, added
    before: str | None = None
    after: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {"image": self.image, "file": self.file, "what": self.what, "before": self.before, "after": self.after}

    def to_text(self) -> str:
        """One line, or three with a caption."""
        if self.what != "caption":
            return f"{self.image}: {self.what}, {self.file}"
        return f"{self.image}\n  - {self.before if self.before is not None else '(no caption)'}\n  + {self.after}"


@dataclass(frozen=True)
class EditPlan:
    """An edit that was checked: what it changes, and of how many images that were looked at. Nothing is done yet."""

    folder: Path
    shown: tuple[Shown, ...]
    changes: tuple[Change, ...]
    looked_at: int
    contents: tuple[bytes, ...] = ()  # of new files that the changes know by their hashes
    without_caption: int = 0  # images that operations on captions leave out, as they have none

    @property
    def images(self) -> int:
        """How many images it changes."""
        return len({shown.image for shown in self.shown})

    @property
    def summary(self) -> str:
        return f"{self.images} of {counted(self.looked_at, 'image')}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        changes = [shown.to_json() for shown in self.shown]
        counts = {"images": self.looked_at, "changed": self.images, "without_caption": self.without_caption}
        return {"folder": str(self.folder), **counts, "changes": changes}

    def to_text(self) -> str:
        """Each change, for a person."""
        return "\n".join(as_lines(line.split("\n")) if "\n" in line else as_lines([line]) for line in map(Shown.to_text, self.shown))


@dataclass(frozen=True)
class Choice:
    """Which images an edit is about: those of `files` (none: all) that have `only` in a caption and every tag of `tagged`."""

    files: tuple[str, ...] = ()
    only: str | None = None  # capitals do not matter
    tagged: tuple[str, ...] = ()

    def of(self, found: EditableSet) -> list[Entry]:
        """The images, in the set's order. Raises Refused, or Faults, for names that the set does not have."""
        chosen = list(found.entries) if not self.files else named(found, self.files)
        if self.only is not None:
            only = self.only.casefold()
            chosen = [entry for entry in chosen if any(only in caption.casefold() for caption in entry.captions)]
        wanted = {" ".join(tag.split()).casefold() for tag in self.tagged}
        return [entry for entry in chosen if wanted <= _tags(entry)] if wanted else chosen

    def to_text(self) -> str:
        """What a caption must have, for a person: of a choice that has `only` or `tagged`."""
        only = [f"{self.only!r} in a caption (--only)"] if self.only is not None else []
        return " and ".join([*only, *(f"the tag {tag!r} (--tagged)" for tag in self.tagged)])


def _tags(entry: Entry) -> set[str]:
    return {tag.casefold() for caption in entry.captions for tag in tags_of(caption)}


def named(found: EditableSet, names: Sequence[str]) -> list[Entry]:
    """The images of these names, in the set's order. Raises Refused, or Faults, for names that the set does not have."""
    by_name = {entry.name: entry for entry in found.entries}
    wanted = {name.removeprefix("./"): name for name in names}
    refuse(
        [f"{given}: the set has no image of this name. {suggest(name, by_name)}" for name, given in wanted.items() if name not in by_name]
    )
    return [entry for entry in found.entries if entry.name in wanted]


def refuse(faults: Sequence[str]) -> None:
    """Raise Refused for one fault, Faults for several."""
    if faults:
        raise Refused(faults[0]) if len(faults) == 1 else Faults("This edit cannot be made:", faults)


def refuse_links(folder: Path, files: Sequence[str]) -> None:
    """Raise Refused for files that are links: what they point to may be another set's."""
    links = [file for file in dict.fromkeys(files) if (folder / file).is_symlink()]
    if links:
        raise Refused(f"{some(links, MOST)}: a link. Put the file itself there, or edit what it points to.")
