"""Votes in the page: sessions of blind pairs, each vote on the disk before it is confirmed, and the rankings that they give.

A session is that of `loraloom vote`, and so is its page, in a frame: pages that vote on the same grid share one.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from infer.vote.comparison import choose_axes, read_axes
from infer.vote.finished import FinishedGrid, read_grid
from infer.vote.page.images import bare_image
from infer.vote.page.page import policy, session_page
from infer.vote.page.session import Rejected, Session, check_voter
from infer.vote.ranking import page as ranking_page
from infer.vote.ranking.rank import rank_grids, read_ballots
from infer.vote.votes import NAME, read_votes
from loraloom.studio.context import Studio
from loraloom.studio.guard import EVERYWHERE
from loraloom.studio.routes import Sent
from registry.errors import NotFound, Refused
from registry.printable import one_line

MOST = 40  # sessions that are kept open
T = TypeVar("T")


@dataclass(frozen=True)
class Voting:
    """An open session: whoever votes in its page is in it."""

    id: str
    session: Session


@dataclass
class Sessions:
    """The open sessions by what they are about, the one that was asked for last at the end."""

    by_question: dict[tuple[Any, ...], Voting] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, question: tuple[Any, ...], make: Callable[[], Session]) -> Voting:
        """The session of a question, opened where there is none."""
        with self.lock:
            found = self.by_question.pop(question, None) or Voting(secrets.token_hex(16), make())
            self.by_question[question] = found
            while len(self.by_question) > MOST:
                self.by_question.pop(next(iter(self.by_question)))
            return found

    def named(self, id: str) -> Session:
        """The session of this id. Raises NotFound."""
        with self.lock:
            found = next((one.session for one in self.by_question.values() if secrets.compare_digest(one.id, id)), None)
        if found is None:
            raise NotFound("This session of votes has ended: every vote that was confirmed is kept. Open the page again.")
        return found


SESSIONS = Sessions()


def comparable(folder: Path, given: str | None) -> dict[str, Any]:
    """The axes that can be compared, those that are (as given, or the only ones), what is wrong with them, and the votes that are there."""
    grid = read_grid(folder)
    votes = read_votes(folder / NAME)
    fault, axes = None, []
    try:
        axes = list(choose_axes([grid], read_axes(given), votes.votes))
    except Refused as error:
        fault = str(error)
    return {"axes": list(grid.axes), "compared": axes, "fault": fault, "votes": len(votes.votes), "notes": list(votes.notes)}


def opened(studio: Studio, folder: Path, given: str | None) -> dict[str, Any]:
    """Open a session on a grid, or the one that is open. Raises Refused, also where no vote could be kept."""
    grid = read_grid(folder)
    axes = choose_axes([grid], read_axes(given))
    return opened_on(studio, grid, axes)


def opened_on(studio: Studio, grid: FinishedGrid, axes: Sequence[str]) -> dict[str, Any]:
    """The same on a grid that was read, comparing these axes."""
    studio.places.writable(grid.folder)
    if not os.access(grid.folder, os.W_OK):
        raise Refused(f"{one_line(grid.folder)} cannot be written to, and votes are kept there. Copy the grid.")
    stat = (grid.folder / "cells.jsonl").stat()
    question = (grid.folder, tuple(axes), len(grid.cells), stat.st_mtime_ns)
    voting = SESSIONS.of(question, lambda: Session([grid], tuple(axes)))
    return {
        "session": voting.id,
        "axes": list(axes),
        "candidates": len(voting.session.comparison.candidates),
        "pairs": voting.session.pairs,
        "preview": voting.session.preview(),
    }


def ballot(id: str) -> Sent:
    """The page of a session."""
    session = SESSIONS.named(id)
    html = session_page(session, at="ballot/", image=f"ballot/image?session={id}&name=", given={"session": id})
    return Sent(html.encode(), "text/html; charset=utf-8", policy=f"{policy()}; {EVERYWHERE}")


def image(id: str, name: str) -> Sent:
    """An image of a session, its pixels alone. Raises NotFound."""
    session = SESSIONS.named(id)
    path = session.images.get(name)
    if path is None:
        raise NotFound("This image is not of the session.")
    return Sent(bare_image(path, session.boxes.get(name)), "image/png", lasting=True)


def cast(id: str, act: Callable[[Session], dict[str, Any]]) -> dict[str, Any]:
    """What a voter does in a session; gives what the page shows next. Raises Refused where the session rejects it."""
    try:
        return act(SESSIONS.named(id))
    except Rejected as error:
        raise Refused(str(error)) from error


def seconds_of(values: Mapping[str, Any]) -> float:
    """How long a vote took. Raises Refused."""
    value = values.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("seconds: expected a number.")
    return float(value)


def voter_of(values: Mapping[str, Any]) -> str:
    """Who votes. Raises Refused."""
    name = values.get("voter")
    check_voter(name)
    return str(name)


def ranking(folder: Path, given: str | None) -> Sent:
    """The ranking by the votes of a grid, as the page of `loraloom rank GRID --html`."""
    return ranking_of(read_grid(folder), read_axes(given))


def ranking_of(grid: FinishedGrid, axes: tuple[str, ...] | None) -> Sent:
    """The same of a grid that was read."""
    ballots, notes = read_ballots([grid])
    html = ranking_page.page(rank_grids([grid], ballots, axes=axes, notes=notes))
    return Sent(html.encode(), "text/html; charset=utf-8", policy=f"{ranking_page.policy()}; {EVERYWHERE}")
