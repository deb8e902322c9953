"""The run folders below `runs/` of the working folder and the roots, and what state each is in."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from train.output.folder import RESULT, in_use, is_run

OUT = "runs"  # what `out` is where it is not given
SWEEPS = "sweeps"
STAMP = re.compile(r"\d{8}-\d{6}(-\d+)?")


class RunState(StrEnum):
    """What has become of a run."""

    running = "running"
    finished = "finished"
    stopped = "stopped"  # it has no result, and no process trains in it
    elsewhere = "elsewhere"  # the index knows it, and its folder is not on this machine


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run folder; `stamp` is when it was begun (UTC), as its own name has it."""

    path: Path
    name: str
    stamp: str

    @property
    def order(self) -> tuple[str, int]:
        """What run folders are sorted by: when they began, and the number of several in one second."""
        number = self.stamp[16:]
        return self.stamp[:15], int(number) if number.isdigit() else 1


@dataclass
class Names:
    """The runs of each `runs/<name>/`, listed again when that folder has changed."""

    known: dict[Path, tuple[int, tuple[RunFolder, ...]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, parent: Path) -> tuple[RunFolder, ...]:
        """The run folders directly in a folder."""
        try:
            changed = parent.stat().st_mtime_ns
            with self.lock:
                known = self.known.get(parent)
            if known is not None and known[0] == changed:
                return known[1]
            found = tuple(
                RunFolder(path=one, name=parent.name, stamp=one.name)
                for one in parent.iterdir()
                if STAMP.fullmatch(one.name) and is_run(one)
            )
        except OSError:  # removed meanwhile, or no folder of ours to read
            return ()
        with self.lock:
            self.known[parent] = changed, found
        return found


NAMES = Names()


def run_folders(roots: Sequence[Path]) -> list[RunFolder]:
    """All run folders below `runs/` of these folders, the newest first."""
    found = {one.path: one for root in roots for parent in _names_in(root / OUT) for one in NAMES.of(parent)}
    return sorted(found.values(), key=lambda one: one.order, reverse=True)


def _names_in(out: Path) -> Iterable[Path]:
    try:
        return [entry for entry in out.iterdir() if entry.name != SWEEPS and not entry.name.startswith(".")]
    except OSError:
        return []


def run_folder(path: Path) -> RunFolder:
    """A run folder by its path, wherever it lies."""
    return RunFolder(path=path, name=path.parent.name, stamp=path.name)


def state_of(path: Path) -> RunState:
    """The state of a run folder that is here."""
    if in_use(path):
        return RunState.running
    return RunState.finished if (path / RESULT).is_file() else RunState.stopped
