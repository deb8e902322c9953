"""The queue's jobs and the run folders in one list: what runs and waits first, in its order, then what has ended, the newest first."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.queue.job import Job, State
from loraloom.queue.queue import Queue
from loraloom.studio.runs.folders import RunFolder, RunState, run_folder, run_folders, state_of
from loraloom.studio.runs.registered import RegisteredRun, index_trouble, registered_runs
from loraloom.studio.runs.summary import Summary, summary_of
from train.output.folder import is_run

if TYPE_CHECKING:
    from loraloom.studio.context import Studio

ENDED = 500  # ended jobs that are listed, the newest
SHOWN_FIRST = 50  # runs whose state is watched: those of the first page
STATES = ("running", "waiting", "finished", "stopped", "failed", "elsewhere")  # that the list is filtered by
OF_JOBS = {  # what the state of a job is in this list
    State.waiting: "waiting",
    State.running: "running",
    State.done: "finished",
    State.failed: "failed",
    State.refused: "failed",
    State.lost: "failed",
    State.interrupted: "stopped",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row before its values are read: a run folder that is here, a run of the index, or a job that made no single run."""

    order: tuple[str, int]
    run: RunFolder | None = None
    registered: RegisteredRun | None = None
    job: Job | None = None  # also the newest job of a run

    def matches(self, words: Sequence[str]) -> bool:
        """Whether every word is in the name, the path or the command, ignoring case."""
        texts = [self.run.path if self.run else "", self.registered.reference if self.registered else ""]
        texts += [self.registered.path if self.registered else "", self.job.command if self.job else ""]
        whole = "\n".join(map(str, texts)).casefold()
        return all(word in whole for word in words)

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.run is not None:
            found = state_of(self.run.path)
            failed = found is RunState.stopped and self.job is not None and OF_JOBS[self.job.state] == "failed"
            return "failed" if failed else found.value
        return RunState.elsewhere.value if self.job is None else OF_JOBS[self.job.state]

    def to_json(self) -> dict[str, Any]:
        """A row of the page."""
        summary = summary_of(self.run.path) if self.run else self.registered.summary if self.registered else Summary()
        place = self.run.path if self.run else self.registered.path if self.registered else None
        return {
            "path": None if place is None else str(place),
            "here": self.run is not None,
            "name": self.run.name if self.run else self.registered.reference if self.registered else None,
            "stamp": self.order[0],
            "state": self.state,
            "summary": vars(summary),
            "job": self.job.to_json() if self.job else None,
        }


def own_queue(studio: Studio) -> Queue:
    """The queue of the Studio's home."""
    return Queue(studio.home)


_lock = threading.Lock()
_ended: dict[Path, tuple[frozenset[str], tuple[Job, ...]]] = {}  # home -> the ids that have ended, and the newest of these jobs


def jobs_of(studio: Studio) -> tuple[list[Job], tuple[Job, ...]]:
    """(jobs that run and wait, those that have ended, the newest first): what has ended is read once, as it does not change."""
    queue = own_queue(studio)
    active = queue.jobs(limit=0)
    try:
        names = {entry.name for entry in os.scandir(queue.folder) if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:  # nothing was ever added
        return active, ()
    ids = frozenset(names - {job.id for job in active})
    with _lock:
        known = _ended.get(studio.home)
    if known is not None and known[0] == ids:
        return active, known[1]
    ended = tuple(job for job in queue.jobs(limit=ENDED) if job.state.has_ended)
    with _lock:
        _ended[studio.home] = ids, ended
    return active, ended


def entries(studio: Studio) -> tuple[list[Job], list[Entry]]:
    """(jobs that run and wait, everything else, the newest first)."""
    active, ended = jobs_of(studio)
    runs = {run.path: run for run in run_folders(studio.roots)}
    of_runs: dict[Path, Job] = {}
    for job in reversed([*active, *ended]):  # the newest last, which stays
        of_runs |= dict.fromkeys(job.made, job)
    for path in of_runs:
        if path not in runs and is_run(path):  # the folders that a grid's job made have settings, too
            runs[path] = run_folder(path)
    known = {one.path: one for one in registered_runs(studio)}
    found = [Entry(order=run.order, run=run, registered=known.get(path), job=of_runs.get(path)) for path, run in runs.items()]
    found += map(_registered, (one for path, one in known.items() if path not in runs))
    found += [Entry(order=(_stamp(job), 0), job=job) for job in ended if not _is_one_run(job, runs)]
    return active, sorted(found, key=lambda entry: entry.order, reverse=True)


def _registered(one: RegisteredRun) -> Entry:
    here = (one.path / "config.yaml").is_file()
    return Entry(order=(one.stamp[:15], 1), run=run_folder(one.path) if here else None, registered=one)


def _is_one_run(job: Job, runs: Mapping[Path, RunFolder]) -> bool:
    """Whether the run's own row stands for the job."""
    return job.words[:1] == ("train",) and len(job.made) == 1 and job.made[0] in runs


def _stamp(job: Job) -> str:
    return (job.began or job.created).strftime("%Y%m%d-%H%M%S")


def listing(studio: Studio, *, text: str, state: str, offset: int, limit: int) -> dict[str, Any]:
    """A page of the list. `state` "" is all; the jobs that run and wait are on the first page."""
    active, rest = entries(studio)
    words = text.casefold().split()
    shown: Iterable[Entry] = (entry for entry in rest if entry.matches(words))
    if state:
        shown = (entry for entry in shown if entry.state == state)
    found = list(shown)
    chosen = [job for job in active if Entry(order=("", 0), job=job).matches(words) and state in ("", OF_JOBS[job.state])]
    return {
        "active": [job.to_json() for job in chosen],
        "rows": [entry.to_json() for entry in found[offset : offset + limit]],
        "total": len(found),
        "paused": own_queue(studio).paused,
        "stuck": own_queue(studio).stuck,
        "index": index_trouble(studio),
    }


def start_waiting(studio: Studio, active: Sequence[Job]) -> None:
    """Start the first job where all of these wait: what watched over the last one may have been killed, and started none."""
    if active and not studio.read_only and all(job.state is State.waiting for job in active):
        own_queue(studio).advance()


def glance(studio: Studio) -> dict[str, Any]:
    """What the list watches: the jobs that run and wait, and a number that changes when a run or an ended job comes or goes."""
    active, ended = jobs_of(studio)
    start_waiting(studio, active)
    runs = run_folders(studio.roots)
    newest = tuple(state_of(run.path).value for run in runs[:SHOWN_FIRST])
    version = (
        hash((tuple(run.path for run in runs), newest, tuple(job.id for job in ended), index_trouble(studio, known=True))) & 0xFFFFFFFF
    )
    queue = own_queue(studio)
    return {"active": [job.to_json() for job in active], "paused": queue.paused, "stuck": queue.stuck, "version": version}


def job_of(studio: Studio, folder: Path) -> Job | None:
    """The newest job that made a run folder, or goes on with it."""
    active, ended = jobs_of(studio)
    return next(filter(partial(_made, folder), [*active, *ended]), None)


def _made(folder: Path, job: Job) -> bool:
    return folder in job.made or any(word == f"resume={folder}" for word in job.words)
