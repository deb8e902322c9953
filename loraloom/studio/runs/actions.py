"""What the buttons of the section do. Each has a command line that does the same: `words`, which the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraloom.queue.folder import CommandLine
from loraloom.queue.job import Job, State
from loraloom.studio.runs.listing import job_of, own_queue
from registry.errors import Refused
from registry.home import expanded

if TYPE_CHECKING:
    from loraloom.studio.context import Studio


def start(studio: Studio, words: Sequence[str], *, first: bool) -> Job:
    """Add a command line to the queue, to run in the Studio's folder: `loraloom queue add [--first] WORDS`."""
    return own_queue(studio).add(words, folder=studio.folder, first=first)


def resume_run(studio: Studio, folder: Path) -> Job:
    """Go on with a run: `loraloom queue add train resume=FOLDER`; once, however often it is asked for."""
    job = job_of(studio, folder)
    if job is not None and job.state in (State.waiting, State.running):
        raise Refused(f"{folder}: its job {job.id} {'waits in the queue' if job.state is State.waiting else 'runs'} already.")
    return own_queue(studio).add(["train", f"resume={folder}"], folder=studio.folder, once=True)  # two may ask at the same moment


def make_report(studio: Studio, folder: Path) -> tuple[Job, bool]:
    """`loraloom queue add report FOLDER`, and True; the job that makes this report already, and False, where one waits or runs."""
    words = ("report", str(folder))

    def is_same(line: CommandLine) -> bool:
        if line.words[:1] != words[:1] or len(line.words) != len(words):
            return False
        return (line.folder / expanded(line.words[1])).resolve() == folder.resolve()

    return own_queue(studio).add_unless(is_same, words, folder=studio.folder)


def move(studio: Studio, job: str, place: str) -> None:
    """Move a waiting job: `loraloom queue move ID --first`, `--last`, or `--before OTHER`; `up` and `down` are moves before another one."""
    queue = own_queue(studio)
    waiting = [one.id for one in queue.jobs(limit=0) if one.state is State.waiting]
    if job not in waiting:
        raise Refused(f"The job {job} does not wait. Only waiting jobs have an order.")
    at = waiting.index(job)
    if place == "first":
        before: str | None = waiting[0]
    elif place == "last":
        before = None
    elif place == "up":
        before = waiting[max(0, at - 1)]
    elif place == "down":
        before = waiting[at + 2] if at + 2 < len(waiting) else None
    else:
        raise Refused(f"place: expected first, last, up or down, got {place!r:.40}.")
    if before != job:
        queue.move(job, before=before)
