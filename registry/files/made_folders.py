"""The run folders that a job of the queue makes, noted as soon as each exists: one path a line, as JSON, in the job's folder.

The environment names the job's folder, so that the processes of a launcher note theirs too. Outside of a queue nothing is noted.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

VARIABLE = "LORALOOM_JOB"  # the folder of the job that this process is, or is part of
NAME = "made.jsonl"


def job_folder() -> Path | None:
    """The folder of the queue's job that this process belongs to; None outside of a queue."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else None


def note_made(folder: Path) -> None:
    """Note a run folder for those who look at the job. A line is appended in one write: several processes may note at once."""
    job = job_folder()
    if job is None:
        return
    line = json.dumps(str(folder.absolute())) + "\n"
    with suppress(OSError):  # the job's folder may be gone, or its disk full: neither ends the job
        descriptor = os.open(job / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_made(job: Path) -> tuple[Path, ...]:
    """The run folders that a job has noted, each once, in the order in which they were made."""
    try:
        lines = (job / NAME).read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):  # a line that a full disk cut off, or that is none of ours
            found.append(Path(str(json.loads(line))))
    return tuple(dict.fromkeys(found))
