"""One change of one file of a set, which can be made and taken back: each knows whether the file is as before, as after, or neither.

All names are relative to the set's folder, with slashes. A change that was made already is not made twice, so that an edit whose
process was killed is finished by making it again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_type_hints

from registry.errors import BadFile, JobFailed, Refused
from registry.formats.atomic_file import atomic_file, sync_folder
from registry.typed_values import mistyped
from train.data.editing.rows import Rows, same_mode
from train.data.listing import KEPT

State = Literal["before", "after", "other"]


class Change(Protocol):
    """A change; `file` is what it is called by."""

    @property
    def file(self) -> str: ...

    def state(self, root: Path) -> State:
        """Whether the set is as before it, as after it, or neither: somebody else changed it."""
        ...

    def make(self, root: Path) -> None:
        """Make it, in a set that is as before it."""
        ...

    def reversed(self) -> Change:
        """What takes it back."""
        ...


@dataclass(frozen=True)
class TextChange:
    """A text file, UTF-8, whole: None is a file that is not there."""

    file: str
    before: str | None
    after: str | None

    def state(self, root: Path) -> State:
        try:
            now: bytes | None = (root / self.file).read_bytes()
        except FileNotFoundError:
            now = None
        except (IsADirectoryError, NotADirectoryError):
            return "other"
        wanted = tuple(None if text is None else text.encode() for text in (self.after, self.before))
        return "after" if now == wanted[0] else "before" if now == wanted[1] else "other"

    def make(self, root: Path) -> None:
        path = root / self.file
        if self.after is None:
            _removed(path)
        else:
            _written(path, self.after.encode())

    def reversed(self) -> TextChange:
        return TextChange(self.file, self.after, self.before)


@dataclass(frozen=True)
class FileChange:
    """A file by its sha256, whose contents are in the set's `.loraloom-edits/kept/`; None is a file that is not there."""

    file: str
    before: str | None
    after: str | None

    def state(self, root: Path) -> State:
        now = _now(root / self.file)
        return "after" if now == self.after else "before" if now == self.before else "other"

    def make(self, root: Path) -> None:
        path = root / self.file
        if self.before is not None:
            keep(root, path.read_bytes())
        if self.after is None:
            _removed(path)
            return
        data = kept(root, self.after).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.after:
            raise JobFailed(f"{kept(root, self.after)} is not what was kept there: somebody changed it. {self.file} stays as it is.")
        _written(path, data)

    def reversed(self) -> FileChange:
        return FileChange(self.file, self.after, self.before)


@dataclass(frozen=True)
class Move:
    """A file that gets another name, never that of an existing one."""

    file: str
    to: str
    sha256: str

    def state(self, root: Path) -> State:
        here, there = _now(root / self.file), _now(root / self.to)
        if there == self.sha256 and here is None:
            return "after"
        return "before" if here == self.sha256 and there is None else "other"

    def make(self, root: Path) -> None:
        source, target = root / self.file, root / self.to
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise JobFailed(f"{target} is there already, and is not written over.")
        os.rename(source, target)
        sync_folder(target.parent)
        sync_folder(source.parent)
        _without_folder(source, root)

    def reversed(self) -> Move:
        return Move(self.to, self.file, self.sha256)


@dataclass(frozen=True)
class Added:
    """A new file, copied from elsewhere."""

    file: str
    sha256: str
    source: str  # its absolute path

    def state(self, root: Path) -> State:
        now = _now(root / self.file)
        return "after" if now == self.sha256 else "before" if now is None else "other"

    def make(self, root: Path) -> None:
        source, place = Path(self.source), kept(root, self.sha256)
        found = place if place.is_file() else source  # one that was taken back lies there
        digest = hashlib.sha256()
        with found.open("rb") as file, atomic_file(root / self.file) as written:
            while piece := file.read(1 << 20):
                digest.update(piece)
                written.write(piece)
            if digest.hexdigest() != self.sha256:
                raise JobFailed(f"{found} changed while it was added. Nothing of it is kept: add it again.")

    def reversed(self) -> Removed:
        return Removed(self.file, self.sha256, self.source)


@dataclass(frozen=True)
class Removed:
    """A file that is put away in the set's `.loraloom-edits/kept/`."""

    file: str
    sha256: str
    source: str

    def state(self, root: Path) -> State:
        state = self.reversed().state(root)
        return {"after": "before", "before": "after"}.get(state, "other")  # type: ignore[return-value]

    def make(self, root: Path) -> None:
        place = kept(root, self.sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(root / self.file, place)
        sync_folder(place.parent)

    def reversed(self) -> Added:
        return Added(self.file, self.sha256, self.source)


KINDS: Mapping[str, type[Any]] = {
    "text": TextChange,
    "rows": Rows,
    "file": FileChange,
    "move": Move,
    "added": Added,
    "removed": Removed,
}


def to_json(change: Change) -> dict[str, Any]:
    """Plain values, as the journal has them."""
    kind = next(name for name, one in KINDS.items() if type(change) is one)
    if isinstance(change, Rows):
        return {"kind": kind, **change.to_json()}
    return {"kind": kind, **{field.name: getattr(change, field.name) for field in fields(change)}}  # type: ignore[arg-type]


def from_json(value: Mapping[str, Any], *, where: Path) -> Change:
    """A change of the journal. Raises BadFile for what is none, and for a name outside the set: a set may come from anywhere."""
    try:
        values = dict(value)
        kind = KINDS[values.pop("kind")]
        read: Callable[..., Change] = kind.from_json if kind is Rows else kind
        change = read(**values)
        if wrong := mistyped({field.name: getattr(change, field.name) for field in fields(change)}, get_type_hints(type(change))):  # type: ignore[arg-type]
            raise ValueError(wrong[0])
        names = [change.file, *([change.to] if isinstance(change, Move) else [])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(where, "journal", f"is no edit of this version ({error}).") from error
    for name in names:
        parts = Path(name).parts
        if not parts or "\0" in name or Path(name).is_absolute() or ".." in parts or parts[0] == KEPT:
            raise BadFile(where, "journal", f"names {name!r}, which is not a file of the set.")
    return change


def kept(root: Path, sha256: str) -> Path:
    """Where the content of this hash is kept."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise Refused(f"{sha256!r}: this is no sha256.")
    return root / KEPT / "kept" / sha256


def keep(root: Path, data: bytes) -> str:
    """Keep a content; gives its sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    place = kept(root, sha256)
    if not place.is_file() or place.stat().st_size != len(data):
        _written(place, data)
    return sha256


def sha256_of(path: Path) -> str | None:
    """The sha256 of a file, None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _now(path: Path) -> str | None:
    """As `sha256_of`; a folder in the place of a file is neither that nor none."""
    try:
        return sha256_of(path)
    except (IsADirectoryError, NotADirectoryError):
        return "a folder"


def lacks_content(root: Path, change: Change) -> bool:
    """Whether what the change would write is no longer kept, nor where it came from."""
    if isinstance(change, FileChange):
        return change.after is not None and not kept(root, change.after).is_file()
    return isinstance(change, Added) and not kept(root, change.sha256).is_file() and not Path(change.source).is_file()


def _written(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with same_mode(path), atomic_file(path, needed=len(data)) as file:
        file.write(data)


def _removed(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _without_folder(moved: Path, root: Path) -> None:
    """Remove the folders that a file left empty, below the set."""
    for folder in moved.parents:
        if folder == root or not folder.is_relative_to(root):
            return
        with suppress(OSError):
            folder.rmdir()
