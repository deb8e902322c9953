"""The jobs of this section: their command lines, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infer.output.page.served import KEY
from infer.score.kinds import SCORES
from loraloom.queue.job import Job
from loraloom.queue.queue import Queue
from loraloom.studio.context import Studio
from registry.errors import Refused
from registry.printable import some

COMMANDS = ("grid", "choose", "score", "explain")
LAST = 12  # jobs that ended, of which a page sees those of this section
LOG = 8000  # bytes of a log's end


def add(studio: Studio, words: Sequence[str]) -> dict[str, Any]:
    """Put a command line into the queue. Raises what the command refuses it with."""
    return row(Queue(studio.home).add(words, folder=studio.folder))


def row(job: Job) -> dict[str, Any]:
    """A job as a page shows it; `grid` is the first folder it made that is a grid's."""
    grid = next((str(path) for path in job.made if (path / "report.html").is_file()), None)
    return {**job.to_json(), "grid": grid}


def jobs(studio: Studio) -> list[dict[str, Any]]:
    """The jobs of this section that run or wait, and the last ones."""
    return [row(job) for job in Queue(studio.home).jobs(LAST) if job.words and job.words[0] in COMMANDS]


def drawing(studio: Studio, folder: Path) -> dict[str, Any] | None:
    """The job that draws the grid in a folder now, None where none does: a shell, or nothing."""
    found = (job for job in Queue(studio.home).jobs(limit=0) if folder in (made.resolve() for made in job.made))
    return next((job.to_json() for job in found), None)


def job(studio: Studio, id: str) -> dict[str, Any]:
    """One job with the end of its log."""
    queue = Queue(studio.home)
    found = queue.job(id)
    text, _ = queue.log(found.id, start=-LOG)
    return {**row(found), "log": text}


def score_words(folder: Path, scores: Sequence[str]) -> list[str]:
    """`loraloom score FOLDER --score NAME ...`. Raises Refused for a score that there is not."""
    for given in scores:
        if (name := given.strip("{ ").partition("=")[0].partition(":")[0].strip()) not in SCORES:
            raise Refused(f"score: there is no {name!r}. Known: {some(sorted(SCORES), 20)}.")
    return ["score", str(folder), *(word for one in scores for word in ("--score", one))]


def scores() -> list[dict[str, Any]]:
    """The scores with their options, as `loraloom score --list` has them."""
    return [
        {"score": name, "summary": entry.summary, "options": {option.name: option.meaning for option in entry.options.values()}}
        for name, entry in sorted(SCORES.items())
    ]


def explain_words(folder: Path, key: str) -> list[str]:
    """`loraloom explain FOLDER --cells KEY`. Raises Refused for what is no key."""
    if not KEY.fullmatch(key):
        raise Refused("key: expected the key of a cell.")
    return ["explain", str(folder), "--cells", key[:16]]
