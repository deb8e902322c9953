"""The edits of a set, in its own hidden folder `.loraloom-edits`: they move, and are copied, with the set.

    .loraloom-edits/
        000001.done.jsonl    one edit: what it is in the first line, then a change a line, with what was there before
        kept/<sha256>        masks and images that an edit replaced or took away
        lock

An edit is written before anything is changed, as NNNNNN.begun.jsonl, and renamed when all is done; .undoing and .undone likewise. What a
killed process leaves is finished or undone: a change that was made is not made twice.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from registry.errors import BadFile, Faults, JobFailed, LoomError, Refused
from registry.files.locks import locked
from registry.files.unfinished import NAMED as TEMPORARY_NAMED
from registry.files.unfinished import is_in_use, label_of, leftovers, remove_leftover
from registry.formats.atomic_file import sync_folder, write_text
from registry.printable import counted, shell_line
from registry.progress import Report, Tick, silent
from train.data.editing.changes import Change, Move, TextChange, from_json, lacks_content, to_json
from train.data.listing import KEPT

Stage = Literal["begun", "done", "undoing", "undone"]
NAMED = re.compile(r"(?P<number>\d{6,})\.(?P<stage>begun|done|undoing|undone)\.jsonl")
OPEN = ("begun", "undoing")
LOCK = "lock"
THREADS = 8  # that write text files: each waits for the disk


@dataclass(frozen=True)
class Edit:
    """An edit of the journal, without its changes. `words` are the command's, behind `loraloom`."""

    file: Path
    number: int
    stage: Stage
    when: str  # UTC, to the second
    words: tuple[str, ...]
    images: int  # that it changed

    @property
    def command(self) -> str:
        return shell_line("loraloom", *self.words)

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {"number": self.number, "state": self.stage, "when": self.when, "images": self.images, "command": self.command}

    def to_text(self) -> str:
        """One line."""
        states = {"done": "", "undone": "undone  ", "begun": "INTERRUPTED  ", "undoing": "UNDO INTERRUPTED  "}
        return f"{self.number:>4}  {self.when}  {states[self.stage]}{counted(self.images, 'image')}  {self.command}"


@dataclass(frozen=True)
class Made:
    """What was done: an edit made, finished or undone."""

    edit: Edit
    changed: tuple[str, ...]  # files
    left: tuple[str, ...] = ()  # files that somebody else changed since, left as they are


def history(folder: Path) -> list[Edit]:
    """The edits of a set, the newest first. Raises BadFile."""
    try:
        names = [entry.name for entry in os.scandir(folder / KEPT)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(int(match["number"]), match["stage"], name) for name in names if (match := NAMED.fullmatch(name))]
    return [_head(folder / KEPT / name, number, stage) for number, stage, name in sorted(found, reverse=True)]


def interrupted(folder: Path) -> Edit | None:
    """The edit of a set that is half done: by a process that was killed, or by one that is at it now. None without one."""
    return next((edit for edit in history(folder) if edit.stage in OPEN), None)


def _head(file: Path, number: int, stage: str) -> Edit:
    try:
        with file.open(encoding="utf-8") as opened:
            head = json.loads(opened.readline())
        return Edit(file, number, stage, str(head["when"]), tuple(map(str, head["words"])), int(head["images"]))  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadFile(file, "journal", f"is no edit of this version ({error}). Move it away.") from error


def changes_of(edit: Edit) -> list[Change]:
    """The changes of an edit. Raises BadFile."""
    try:
        lines = edit.file.read_text(encoding="utf-8").split("\n")[1:]
        values = [json.loads(line) for line in lines if line]
    except (ValueError, RecursionError) as error:
        raise BadFile(edit.file, "journal", f"is damaged ({error}). Move it away.") from error
    return [from_json(value, where=edit.file) for value in values]


@contextmanager
def editing(folder: Path) -> Iterator[None]:
    """The set kept for this process: what is planned inside is true when it is made. Raises Refused where it cannot be written to."""
    if not os.access(folder, os.W_OK):
        raise Refused(f"{folder} cannot be written to. Copy the set to where you may write, and edit the copy.")
    for place in (folder / KEPT, folder / KEPT / "kept"):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            what = "a link" if place.is_symlink() else "a file"
            raise Refused(f"{place} is {what}, where the edits of a set lie in a folder of its own. Move it away.")
    with locked(folder / KEPT / LOCK, wait=True):
        yield


def check_finished(folder: Path) -> None:
    """Raise Refused where an edit was interrupted, inside `editing`: it is finished or undone before another is made."""
    edit = interrupted(folder)
    if edit is not None:
        raise Refused(f"{folder}: {_half_done(folder, edit)}.")


def interruption(folder: Path) -> str | None:
    """The fault of a set that is half edited, with what to do; None for any other."""
    edit = interrupted(folder)
    if edit is None:
        return None
    return "it is being edited by another process; wait for it" if is_being_edited(folder) else _half_done(folder, edit)


def is_being_edited(folder: Path) -> bool:
    """Whether a process is inside `editing`."""
    lock = folder / KEPT / LOCK
    return lock.exists() and is_in_use(lock)


def _half_done(folder: Path, edit: Edit) -> str:
    what = "Its undo" if edit.stage == "undoing" else "It"
    return f"an edit was interrupted: {edit.command}. {what} is half done: {_ways(folder, edit)}"


def _ways(folder: Path, edit: Edit) -> str:
    """What may be done about an edit that is half done."""
    ways = f"{shell_line('loraloom', 'data', 'edit', folder)} --finish finishes it"
    return ways + ("" if edit.stage == "undoing" else ", --undo takes it back")


def make(folder: Path, changes: Sequence[Change], *, words: Sequence[str], images: int, report: Report = silent) -> Made:
    """Make an edit, inside `editing`. Raises Refused where nothing is changed yet; whatever else happens, the journal has all of it."""
    check_finished(folder)
    place = folder / KEPT
    number = 1 + max((edit.number for edit in history(folder)), default=0)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    lines = [{"when": when, "words": list(words), "images": images}, *map(to_json, changes)]
    edit = Edit(place / f"{number:06}.begun.jsonl", number, "begun", when, tuple(words), images)
    _check(folder, edit, changes, keep_changed=None)
    write_text(edit.file, "".join(json.dumps(line) + "\n" for line in lines))
    return _through(folder, edit, changes, "done", keep_changed=False, report=report)


def finish(folder: Path, *, keep_changed: bool = False, report: Report = silent) -> Made:
    """Finish what was interrupted, inside `editing`. Raises Refused where nothing was, or where somebody else changed its files since."""
    edit = interrupted(folder)
    if edit is None:
        raise Refused(f"{folder}: no edit was interrupted.")
    changes = changes_of(edit)
    if edit.stage == "undoing":
        return _through(folder, edit, _backwards(changes), "undone", keep_changed=keep_changed, report=report)
    return _through(folder, edit, changes, "done", keep_changed=keep_changed, report=report)


def undo(folder: Path, *, keep_changed: bool = False, report: Report = silent) -> Made:
    """Take back the newest edit that is not undone, inside `editing`.

    Raises Refused where there is none, or Faults with the files that somebody else changed since; `keep_changed` leaves those as they are.
    """
    edits = [edit for edit in history(folder) if edit.stage != "undone"]
    if not edits:
        raise Refused(f"{folder}: there is no edit to undo.")
    edit = edits[0]
    changes = _backwards(changes_of(edit))
    _check(folder, edit, changes, keep_changed=keep_changed)
    edit = _renamed(edit, "undoing")
    return _through(folder, edit, changes, "undone", keep_changed=keep_changed, report=report)


def _backwards(changes: Sequence[Change]) -> list[Change]:
    return [change.reversed() for change in reversed(changes)]


def _check(folder: Path, edit: Edit, changes: Sequence[Change], *, keep_changed: bool | None) -> tuple[str, ...]:
    """The files that are neither as before nor as after, or whose contents are kept no more.

    Raises Faults unless they are to be left (None: of a new edit, which leaves none); Refused for folders that are links or not writable.
    """
    _refuse_linked_folders(folder, changes)
    _refuse_sealed_folders(folder, changes)
    states = [(change, change.state(folder)) for change in changes]
    others = [change.file for change, state in states if state == "other"]
    lost = [change.file for change, state in states if state == "before" and lacks_content(folder, change)]
    if (others or lost) and keep_changed is None:
        raise Faults(f"{folder}: files were changed by something else just now. Nothing is done; try again:", [*others, *lost])
    if (others or lost) and not keep_changed:
        faults = [*others, *(f"{file}: what is to be put there is no longer in {KEPT}/kept" for file in lost)]
        title = f"{folder}: files of the edit `{edit.command}` were changed by something else since. Nothing is done; --keep-changed leaves"
        raise Faults(f"{title} these as they are now:", faults)
    return (*others, *lost)


def _refuse_sealed_folders(folder: Path, changes: Sequence[Change]) -> None:
    """An edit that could not write into one of its folders is not begun."""
    names = [name for change in changes for name in (change.file, change.to if isinstance(change, Move) else change.file)]
    for parent in dict.fromkeys((folder / name).parent for name in names):
        if parent.is_dir() and not os.access(parent, os.W_OK | os.X_OK):
            raise Refused(f"{parent} cannot be written to, and nothing is changed. Change its permissions, or edit a copy of the set.")


def _refuse_linked_folders(folder: Path, changes: Sequence[Change]) -> None:
    """Nothing is written through a link, whatever a set that came from elsewhere has in its journal."""
    names = [name for change in changes for name in (change.file, change.to if isinstance(change, Move) else change.file)]
    for parent in dict.fromkeys(parent for name in names for parent in PurePosixPath(name).parents):
        if (folder / parent).is_symlink() and parent.parts:
            raise Refused(f"{folder / parent} is a link. Edit the folder that it points to, or put the folder itself there.")


def _through(folder: Path, edit: Edit, changes: Sequence[Change], stage: Stage, *, keep_changed: bool, report: Report) -> Made:
    """Make the changes. Raises JobFailed where the disk refuses one: the edit is half done then, and what to do is said."""
    left = set(_check(folder, edit, changes, keep_changed=keep_changed))
    try:
        changed = _made(folder, changes, left, report)
    except (OSError, LoomError) as error:
        raise JobFailed(f"{error}\nThe edit is half done: when that is mended, {_ways(folder, edit)}.") from error
    if edit.stage in OPEN:
        _clear(folder, changes)
    return Made(_renamed(edit, stage), tuple(changed), tuple(sorted(left)))


def _made(folder: Path, changes: Sequence[Change], left: Collection[str], report: Report) -> list[str]:
    """The files that were changed: not those of `left`, nor those that are as after the edit."""
    changed: list[str] = []

    def one(change: Change) -> bool:
        if change.file in left or change.state(folder) != "before":
            return False
        change.make(folder)
        return True

    done = 0
    with ThreadPoolExecutor(THREADS) as threads:
        for alike, group in groupby(changes, key=lambda change: isinstance(change, TextChange)):
            some = list(group)  # text files depend on no other; what moves and what tables list has its order
            for change, was_made in zip(some, threads.map(one, some) if alike else map(one, some), strict=True):
                done += 1
                changed += [change.file] if was_made else []
                report(Tick("edit files", done, len(changes), change.file))
    return changed


def _clear(folder: Path, changes: Sequence[Change]) -> None:
    """Remove what a killed process left unfinished of these files."""
    paths = [folder / change.file for change in changes]
    labels = {(path.parent, label_of(path)) for path in paths}
    for parent in {path.parent for path in paths}:
        for left in leftovers(parent):
            named = TEMPORARY_NAMED.fullmatch(left.name)
            if named is not None and (parent, named["label"]) in labels:
                remove_leftover(left)


def _renamed(edit: Edit, stage: Stage) -> Edit:
    file = edit.file.with_name(f"{edit.number:06}.{stage}.jsonl")
    os.rename(edit.file, file)
    sync_folder(file.parent)
    return Edit(file, edit.number, stage, edit.when, edit.words, edit.images)
