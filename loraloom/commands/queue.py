"""`loraloom queue ...`: jobs that run one after the other, each a command line of loraloom in a process of its own."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Refused
from registry.printable import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from loraloom.queue.job import Job
    from loraloom.queue.queue import Queue

HELP = "run commands one after the other in the background: trainings, grids, merges"
ABOUT = """\
Keeps command lines of loraloom and runs them one at a time, each as a process of its own that outlives this terminal. There is no server:
`queue add` starts a job when nothing runs, and each job starts the next one at its end. Jobs lie in the home, under queue/."""
PAUSED = "The queue is paused: loraloom queue start"
STUCK = "Nothing runs: what should have started the next job was killed, or the machine went off. Go on: loraloom queue start"
ENDED = 10  # ended jobs that a list shows
SECONDS_BETWEEN_LOOKS = 0.5  # at a log that is followed
ID = "id of a job, a unique beginning of it, or its last four digits"


def add_parser(subparsers: Any) -> None:
    """Add `queue` and what it can do to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("queue", help=HELP, description=ABOUT)
    words = parser.add_subparsers(metavar="WHAT", required=True)
    adding = _add(words, "add", add, "add a command line without its `loraloom`: queue add train KEY=VALUE ...")
    adding.add_argument("--first", action="store_true", help="before the jobs that wait")
    adding.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="the command and all of its words")
    listing = _add(words, "list", show_all, f"the running job, those that wait, and the last {ENDED} that have ended")
    listing.add_argument("--all", action="store_true", help="all that have ended")
    _with_id(_add(words, "show", show, "all that is known about a job"))
    log = _add(words, "log", show_log, "what a job has written to stdout and stderr", json=False)
    _with_id(log)
    log.add_argument("--follow", action="store_true", help="go on until the job ends")
    _with_id(_add(words, "stop", stop, "stop a job as Ctrl-C does; again: at once; a third time: kill it. A waiting one is taken out"))
    moving = _add(words, "move", move, "change the place of a waiting job", json=False)
    _with_id(moving)
    place = moving.add_mutually_exclusive_group(required=True)
    place.add_argument("--first", action="store_true", help="before all others")
    place.add_argument("--last", action="store_true", help="after all others")
    place.add_argument("--before", metavar="ID", help="before this one")
    removing = _add(words, "remove", remove, "remove jobs with their logs; what they have made stays", json=False)
    removing.add_argument("ids", nargs="+", metavar="ID", help=ID)
    _with_id(_add(words, "resume", resume, "add an ended job again; a training goes on from its checkpoint"))
    _add(words, "pause", pause, "start no waiting job; the running one goes on", json=False)
    _add(words, "start", start, "end a pause, and start the first waiting job when nothing runs", json=False)


def _add(words: Any, name: str, run: Callable[[argparse.Namespace], int], about: str, *, json: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = words.add_parser(name, help=about, description=about)
    if json:
        parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)
    return parser


def _with_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help=ID)


def _queue() -> Queue:
    from loraloom.queue.queue import Queue

    return Queue()


def add(arguments: argparse.Namespace) -> int:
    """Add a job."""
    from pathlib import Path

    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    queue = _queue()
    _answer_added(queue, queue.add(words, folder=Path.cwd(), first=arguments.first), arguments)
    return 0


def _answer_added(queue: Queue, job: Job, arguments: argparse.Namespace) -> None:
    if arguments.json:
        console.answer_json(job.to_json())
        return
    from loraloom.queue.job import State

    if job.state is State.waiting:
        ids = [one.id for one in queue.jobs(limit=0)]
        before = f", {counted(ids.index(job.id), 'job')} before it" if job.id in ids else ""  # another process may have taken it out
        console.say(f"{job.id} waits{before}: {job.command}")
        if queue.paused:
            console.say(PAUSED)
    else:
        console.say(f"{job.id} was started: {job.command}")
    console.answer(job.id)


def show_all(arguments: argparse.Namespace) -> int:
    """List the jobs."""
    queue = _queue()
    jobs = queue.jobs(limit=None if arguments.all else ENDED)
    if arguments.json:
        console.answer_json({"paused": queue.paused, "jobs": [job.to_json() for job in jobs]})
        return 0
    rows = [[job.id, job.state.value, _progress(job), job.command] for job in jobs]
    console.answer_table(["id", "state", "progress", "command"], rows, widest=40)
    if queue.paused:
        console.say(PAUSED)
    elif queue.stuck:
        console.say(STUCK)
    return 0


def _progress(job: Job) -> str:
    """The last progress report in a few words."""
    from loraloom.queue.job import State

    found = job.progress
    if found is None or job.state in (State.waiting, State.done):
        return ""
    done = f"{found.stage} {found.done}/{found.total}" if found.total else f"{found.stage} {found.done}"
    left = f"{console.spell_seconds(found.seconds_left)} left" if found.seconds_left and job.state is State.running else ""
    return "  ".join(part for part in (done, left) if part)


def show(arguments: argparse.Namespace) -> int:
    """Show a job."""
    job = _queue().job(arguments.id)
    if arguments.json:
        console.answer_json(job.to_json())
        return 0
    known = job.to_json()
    values = known["progress"] and console.spell_values({name: value for name, value in known["progress"]["values"].items() if value})
    rows = [
        ("id", job.id),
        ("state", job.state.value if job.exit_code is None else f"{job.state.value} (exit code {job.exit_code})"),
        ("command", job.command),
        ("folder", str(job.folder)),
        ("created", known["created"]),
        ("began", known["began"]),
        ("ended", known["ended"]),
        ("progress", "  ".join(part for part in (_progress(job), values) if part)),
        *(("made", str(path)) for path in job.made),
    ]
    console.answer_table(["what", ""], [row for row in rows if row[1]])
    return 0


def show_log(arguments: argparse.Namespace) -> int:
    """Print a job's log; with --follow until it ends."""
    queue, at = _queue(), 0
    while True:
        ended = queue.job(arguments.id).state.has_ended
        text, after = queue.log(arguments.id, start=at)
        if text:
            console.answer_piece(text)
        if after > at:
            at = after
        elif ended or not arguments.follow:
            return 0
        else:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def stop(arguments: argparse.Namespace) -> int:
    """Stop a job."""
    from loraloom.queue.job import State

    job = _queue().stop(arguments.id)
    if arguments.json:
        console.answer_json(job.to_json())
    elif job.state is State.waiting:
        console.answer(f"{job.id} is taken out of the queue")
    else:
        how = ("is asked to stop, as by Ctrl-C", "is ended at once (SIGTERM)", "is killed")[min(job.stops, 2)]
        console.answer(f"{job.id} {how}")
    return 0


def move(arguments: argparse.Namespace) -> int:
    """Change the place of a waiting job."""
    queue = _queue()
    before = arguments.before
    if arguments.first:
        from loraloom.queue.job import State

        waiting = [job.id for job in queue.jobs(limit=0) if job.state is State.waiting]
        before = waiting[0] if waiting else None
    queue.move(arguments.id, before=before)
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Remove jobs: all of them, or none where one of them cannot be."""
    from loraloom.queue.job import State

    queue = _queue()
    jobs = dict(queue.find(id) for id in arguments.ids)
    if running := [id for id, state in jobs.items() if state is State.running]:
        raise Refused(f"{running[0]} runs, and nothing was removed. Stop it first: loraloom queue stop {running[0]}")
    for id in jobs:
        queue.remove(id)
    return 0


def resume(arguments: argparse.Namespace) -> int:
    """Add an ended job again."""
    queue = _queue()
    _answer_added(queue, queue.resume(arguments.id), arguments)
    return 0


def pause(_arguments: argparse.Namespace) -> int:
    """Start no waiting job."""
    _queue().pause()
    return 0


def start(_arguments: argparse.Namespace) -> int:
    """Start waiting jobs."""
    job = _queue().start()
    console.say("nothing was started" if job is None else f"{job.id} was started: {job.command}")
    return 0
