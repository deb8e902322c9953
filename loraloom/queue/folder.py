"""The folder of a job: its files, and the state that follows from them. Nothing else says what state a job is in.

job.json       the words, the working folder, when it was added, the variables of its environment
log.txt        stdout and stderr of its process
begin.json     when it was started, on which machine, the process
end.json       exit code and when it ended
progress.json  its last progress report
made.jsonl     the run folders that it has made
stops.json     how often it was asked to stop
.lock          held by its process as long as that lives
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loraloom.queue.job import Job, State, state_of
from registry.errors import BadFile
from registry.files.locks import take
from registry.files.made_folders import read_made
from registry.files.progress_file import NAME as PROGRESS
from registry.files.progress_file import read_progress
from registry.formats.atomic_file import write_text
from registry.printable import shell_line

JOB = "job.json"
LOG = "log.txt"
BEGIN = "begin.json"
END = "end.json"
STOPS = "stops.json"
LOCK = ".lock"


@dataclass(frozen=True)
class CommandLine:
    """What a job is to run, as its adder gave it."""

    words: tuple[str, ...]
    folder: Path
    created: datetime
    environment: Mapping[str, str]


def write_command(job: Path, line: CommandLine) -> None:
    """Write job.json."""
    words, folder = list(line.words), str(line.folder)
    write_plain(
        job / JOB,
        {"version": 1, "words": words, "folder": folder, "created": line.created.isoformat(), "environment": dict(line.environment)},
    )


def read_command(job: Path) -> CommandLine:
    """What job.json has. Raises FileNotFoundError for a job that was removed, BadFile for a damaged one."""
    value = read_plain(job / JOB)
    try:
        words = tuple(map(str, value["words"]))
        environment = {str(name): str(one) for name, one in value["environment"].items()}
        return CommandLine(words, Path(value["folder"]), datetime.fromisoformat(value["created"]), environment)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(job / JOB) from error


def write_plain(path: Path, value: Mapping[str, Any]) -> None:
    """A small JSON file, in ASCII: bytes of file names that are no UTF-8 come back as they were."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_plain(path: Path) -> dict[str, Any]:
    """The object in such a file. Raises FileNotFoundError, and BadFile for a damaged one."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _damaged(path: Path) -> BadFile:
    remove = shell_line("loraloom", "queue", "remove", path.parent.name)
    return BadFile(path, "damaged", f"is no file of the queue's. Add the job again, and remove this one: {remove}")


def state_in(job: Path) -> State | None:
    """The state of the job in a folder; None: it has ended, and end.json says how."""
    if (job / END).exists():
        return None
    if not (job / BEGIN).exists():
        return State.waiting
    if is_held(job):
        return State.running
    return None if (job / END).exists() else State.lost  # it may have ended since


def is_held(job: Path) -> bool:
    """Whether the job's process lives: it holds the lock."""
    try:
        descriptor = os.open(job / LOCK, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return False
    try:
        return take(descriptor, shared=True) is False
    finally:
        os.close(descriptor)


def read_job(job: Path) -> Job:
    """The job in a folder. Raises FileNotFoundError for one that was removed, BadFile for damaged files."""
    line = read_command(job)
    state, began, ended, exit_code = state_in(job), None, None, None
    if state is None:
        end = read_plain(job / END)
        ended, exit_code = _time_of(job / END, end, "ended"), _number_of(job / END, end, "exit_code")
        state = state_of(exit_code)
    if state is not State.waiting:
        began = _time_of(job / BEGIN, read_plain(job / BEGIN), "began")
    return Job(
        id=job.name,
        words=line.words,
        folder=line.folder,
        state=state,
        created=line.created,
        began=began,
        ended=ended,
        exit_code=exit_code,
        made=read_made(job),
        progress=read_progress(job / PROGRESS),
        stops=read_stops(job),
    )


def read_stops(job: Path) -> int:
    """How often the job was asked to stop."""
    with suppress(FileNotFoundError):
        return _number_of(job / STOPS, read_plain(job / STOPS), "stops")
    return 0


def _number_of(path: Path, value: Mapping[str, Any], name: str) -> int:
    if not isinstance(value.get(name), int):
        raise _damaged(path)
    return int(value[name])


def _time_of(path: Path, value: Mapping[str, Any], name: str) -> datetime:
    try:
        return datetime.fromisoformat(value[name])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
