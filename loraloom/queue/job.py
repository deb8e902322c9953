"""A job as those who look at the queue get it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from loraloom.console import INTERRUPTED
from registry.files.progress_file import Progress
from registry.printable import shell_line


class State(StrEnum):
    """What has become of a job."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"  # accepted, begun, and not finished
    refused = "refused"  # the input was not accepted when it was started
    interrupted = "interrupted"
    lost = "lost"  # its process was killed, or the machine went off: it left no exit code of its own

    @property
    def has_ended(self) -> bool:
        return self not in (State.waiting, State.running)


STATES = {0: State.done, 2: State.refused, INTERRUPTED: State.interrupted}


def state_of(exit_code: int) -> State:
    """The state by an exit code; a negative one is the signal that killed the process."""
    return State.lost if exit_code < 0 else STATES.get(exit_code, State.failed)


def exit_code_of(returned: int) -> int:
    """The exit code of a process by what `wait` gave: one that a polite signal ended before it could answer was interrupted."""
    return INTERRUPTED if returned in (-signal.SIGINT, -signal.SIGTERM, -getattr(signal, "SIGHUP", signal.SIGTERM)) else returned


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of the queue at the moment it was read."""

    id: str
    words: tuple[str, ...]  # of the command line, without `loraloom`
    folder: Path  # the working folder
    state: State
    created: datetime  # UTC, as all times here
    began: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None  # a negative one is the signal that killed it; None: not ended, or lost without a trace
    made: tuple[Path, ...] = ()  # the run folders so far, each noted as soon as it exists
    progress: Progress | None = None  # the last one; also of a job that has ended
    stops: int = 0  # how often it was asked to stop

    @property
    def command(self) -> str:
        """The command line as it is typed."""
        return shell_line("loraloom", *self.words)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys; times in ISO 8601."""
        return {
            "id": self.id,
            "state": self.state.value,
            "command": self.command,
            "words": list(self.words),
            "folder": str(self.folder),
            "created": self.created.isoformat(),
            "began": self.began.isoformat() if self.began else None,
            "ended": self.ended.isoformat() if self.ended else None,
            "exit_code": self.exit_code,
            "made": [str(path) for path in self.made],
            "progress": self.progress.to_json() if self.progress else None,
            "stops": self.stops,
        }
