"""votes.jsonl of a grid's folder: a vote a line, appended and synced before it is confirmed.

A line that a kill cut off is left out when the file is read, and removed when the next vote is appended. An id counts once.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from registry.errors import BadFile, Faults, Refused
from registry.files.locks import is_at, open_lock, take
from registry.files.write_failure import explained
from registry.formats.atomic_file import sync_folder, write_text
from registry.plain_values import from_json
from registry.printable import HIDDEN, counted, one_line

NAME = "votes.jsonl"
CHOICES = ("left", "right", "tie", "both_bad")
LARGEST = 1 << 28  # bytes of a file of votes
LONGEST = {"id": 64, "left": 128, "right": 128, "voter": 60, "at": 40}  # characters
MOST_FAULTS = 20  # lines that one message lists


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One vote; `left` and `right` are keys of cells, `seconds` is how long it took, `at` when it was cast (ISO 8601, UTC)."""

    id: str
    left: str
    right: str
    choice: str
    voter: str
    seconds: float
    at: str

    def to_line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def read_vote(value: Any) -> Vote:
    """The vote of a plain value. Raises ValueError with what is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"a vote is an object, not {type(value).__name__}")
    names = {one.name for one in fields(Vote)}
    if missing := sorted(names - value.keys()):
        raise ValueError(f"it has no {', '.join(missing)}")
    if unknown := sorted(map(str, value.keys() - names)):
        raise ValueError(f"unknown keys: {', '.join(unknown[:5])}")
    for name, most in LONGEST.items():
        text = value[name]
        if not isinstance(text, str) or not 0 < len(text) <= most or HIDDEN.search(text):
            raise ValueError(f"{name} is not a text of 1 to {most} characters on one line")
    if value["choice"] not in CHOICES:
        raise ValueError(f"choice is {one_line(value['choice'])[:40]!r}, not one of {', '.join(CHOICES)}")
    seconds = value["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9 or not math.isfinite(seconds):
        raise ValueError("seconds is not a number from 0 on")
    if value["left"] == value["right"]:
        raise ValueError("left and right are the same cell")
    try:
        datetime.fromisoformat(value["at"])
    except ValueError:
        raise ValueError("at is not a time such as 2026-01-31T12:00:00+00:00") from None
    return Vote(**{**value, "seconds": float(seconds)})


@dataclass(frozen=True, kw_only=True)
class Votes:
    """The votes of a file, each id once, and what was left out."""

    votes: tuple[Vote, ...]
    notes: tuple[str, ...] = ()


def read_votes(path: Path) -> Votes:
    """The votes of votes.jsonl; none where there is no file. Raises Faults with a line for each that is no vote."""
    votes, faults, notes = [], [], []
    seen: dict[str, tuple[int, Vote]] = {}
    lines = _bytes(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            vote = read_vote(_value(line))
        except ValueError as error:
            if number == len(lines) and not _is_json(line):
                notes.append(f"{path.name}: line {number} was cut off while it was written, and is left out.")
                continue
            faults.append(f"line {number}: {error}")
            continue
        if vote.id in seen:
            first, other = seen[vote.id]
            if vote != other:
                faults.append(f"line {number}: its id {vote.id} is that of another vote, in line {first}")
            continue
        seen[vote.id] = number, vote
        votes.append(vote)
    repeated = sum(bool(line.strip()) for line in lines) - len(votes) - len(faults) - len(notes)
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise Faults(f"{one_line(path)} has lines that are no votes. Correct or remove them:", [*faults[:MOST_FAULTS], *more])
    return Votes(
        votes=tuple(votes),
        notes=(
            *notes,
            *([f"{path.name}: {counted(repeated, 'line repeats', 'lines repeat')} a vote, which counts once."] if repeated else []),
        ),
    )


def _bytes(path: Path) -> bytes:
    if not os.path.lexists(path):
        return b""
    if not path.is_file():
        raise BadFile(path, "no-votes", "is no file. Expected votes, a line each.")
    if path.stat().st_size > LARGEST:
        raise BadFile(path, "no-votes", f"is larger than {LARGEST:,} bytes, the most that is read as votes.")
    return path.read_bytes()


def _value(line: bytes) -> Any:
    try:
        return from_json(line)
    except ValueError:
        raise ValueError("it is no JSON object on one line") from None


def _is_json(line: bytes) -> bool:
    try:
        from_json(line)
    except ValueError:
        return False
    return True


class VotesFile:
    """votes.jsonl of a grid, to which several threads and processes append. A vote that is in it is on the disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._thread = threading.RLock()
        self._seen: tuple[int, int] | None = None  # size and time of the file as it was read
        self._votes: dict[str, Vote] = {}
        self._syncing = threading.Lock()
        self._written = self._synced = 0  # appends
        self.notes: tuple[str, ...] = ()
        self.votes()

    def votes(self) -> list[Vote]:
        """All votes so far, those of other processes too."""
        with self._thread:
            self._refresh()
            return list(self._votes.values())

    def add(self, votes: Sequence[Vote]) -> int:
        """Append the votes whose ids are new, and sync; gives how many. Raises Refused for an id of another vote, WriteFailed."""
        new = self.write(votes)
        self.sync()
        return new

    def write(self, votes: Sequence[Vote]) -> int:
        """`add` without the sync: no vote is confirmed before `sync` returned."""
        with self._thread, _locked(self.path) as descriptor:
            self._refresh()
            if clash := [vote.id for vote in votes if self._votes.get(vote.id, vote) != vote]:
                raise Refused(f"{one_line(clash[0])} is the id of another vote in {one_line(self.path)}.")
            new = {vote.id: vote for vote in votes if vote.id not in self._votes}
            if new:
                _append(descriptor, self.path, "".join(vote.to_line() for vote in new.values()).encode())
                self._votes |= new
                self._seen = _state(self.path)
                self._written += 1
            return len(new)

    def sync(self) -> None:
        """What was written before is on the disk when this returns; one sync serves all threads that wait for it. Raises WriteFailed."""
        wanted = self._written
        with self._syncing:
            if self._synced < wanted:
                reached = self._written
                _flush(self.path)
                if not self._synced:
                    sync_folder(self.path.parent)  # the file may be new
                self._synced = reached

    def remove(self, identity: str) -> Vote | None:
        """Take a vote back: the file is written again without it. None where there is no such vote. Raises WriteFailed."""
        with self._thread, _locked(self.path):
            self._refresh()
            vote = self._votes.pop(identity, None)
            if vote is not None:
                try:
                    write_text(self.path, "".join(one.to_line() for one in self._votes.values()))
                finally:
                    self._seen = None
            return vote

    def _refresh(self) -> None:
        state = _state(self.path)
        if state != self._seen or state is None:
            found = read_votes(self.path)
            self._votes = {vote.id: vote for vote in found.votes}
            self.notes, self._seen = found.notes, state


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of the file, made where it is missing, that no other process holds meanwhile. Raises WriteFailed, Refused for a link."""
    while True:
        with explained(path):
            descriptor = open_lock(path)
        try:
            take(descriptor, wait=True)
            if os.name == "nt" or is_at(descriptor, path):  # else it was written anew since it was opened
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _append(descriptor: int, path: Path, data: bytes) -> None:
    """Add whole lines at the end; a line that was cut off there is removed first."""
    with explained(path, needed=len(data)):
        end = os.lseek(descriptor, 0, os.SEEK_END)
        whole, data = _mended(descriptor, end, data)
        if whole < end:
            os.ftruncate(descriptor, whole)
        try:
            _write_all(descriptor, whole, data)
        except OSError:
            os.ftruncate(descriptor, whole)
            raise


def _flush(path: Path) -> None:
    """Make what is in the file last through a power cut."""
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _mended(descriptor: int, end: int, data: bytes) -> tuple[int, bytes]:
    """Where to write, and what: after the last whole line; a vote that lacks only its newline gets it."""
    longest = min(end, 1 << 16)
    os.lseek(descriptor, end - longest, os.SEEK_SET)
    tail = os.read(descriptor, longest)
    if not tail or tail.endswith(b"\n"):
        return end, data
    last = tail[tail.rfind(b"\n") + 1 :]
    return (end, b"\n" + data) if _is_json(last) else (end - len(last), data)


def _write_all(descriptor: int, at: int, data: bytes) -> None:
    os.lseek(descriptor, at, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
