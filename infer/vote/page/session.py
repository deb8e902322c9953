"""A voting session: the open pairs of each voter, and their votes, each on the disk before it is confirmed.

What the browser gets of a pair is a random id, two random names of images and the prompt: no key, no value of an axis, no file.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from infer.vote.comparison import Comparison, compare, first_of_each, outcomes
from infer.vote.finished import FinishedGrid, GridCell
from infer.vote.page.order import Order, Tallies, Trial, every_place
from infer.vote.ranking.table import rank_outcomes
from infer.vote.ranking.verdict import preview, worth
from infer.vote.returned import image_id
from infer.vote.votes import CHOICES, LONGEST, Vote, VotesFile
from registry.errors import Refused
from registry.printable import HIDDEN, one_line

DEFAULT_VOTES = 60
MORE = 20
SLOWEST = 86_400.0  # seconds of one vote


def shown_prompt(left: GridCell, right: GridCell) -> str | None:
    """The prompt of both; None where prompts are what is compared."""
    return one_line(left.prompt) if left.prompt is not None and left.prompt == right.prompt else None


def check_voter(name: object) -> None:
    """Raises Refused for what is no voter's name."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST["voter"] or name != name.strip() or HIDDEN.search(name):
        raise Refused(f"A voter's name has 1 to {LONGEST['voter']} characters on one line, and no blank at its ends.")


class Rejected(Exception):
    """A request that is answered with a status and a reason, and changes nothing."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class _Voter:
    """One voter's pairs: the open one, and what was cast in this session."""

    name: str
    order: Order
    open: tuple[str, Trial] | None = None
    cast: list[tuple[str, Trial, str]] = field(default_factory=list)  # id, pair, choice
    seconds: list[float] = field(default_factory=list)


class Session:
    """The pairs and votes of some grids. Every method may be called by several threads."""

    def __init__(
        self, grids: Sequence[FinishedGrid], axes: tuple[str, ...], *, asked: int = DEFAULT_VOTES, seed: int = 0, voter: str | None = None
    ) -> None:
        self.comparison: Comparison = compare(grids, axes)
        self.files = [VotesFile(grid.folder) for grid in grids]
        self.voter = voter
        self._asked, self._seed, self._salt = asked, seed, secrets.token_hex(16)
        self._places = every_place(self.comparison)
        if not self._places:
            raise Refused(
                "No two of these candidates have images of one prompt and seed, so there is nothing to vote on. Draw the grid first."
            )
        cells = [cell for row in self.comparison.cells.values() for cell in row.values()]
        self.images: dict[str, Path] = {image_id(self._salt, cell.key): cell.image for cell in cells if cell.image is not None}
        self.boxes = {image_id(self._salt, cell.key): cell.outside.box for cell in cells if cell.outside is not None}
        self._tallies = Tallies(self.comparison)
        self._voters: dict[str, _Voter] = {}
        self._issued: dict[str, str] = {}  # id of a pair -> its voter
        self._lock = threading.RLock()
        self._worth_at: tuple[int, str] | None = None  # votes, and what was said then
        self._before = outcomes(self.comparison, [(number, vote) for number, file in enumerate(self.files) for vote in file.votes()])[0]
        for one in first_of_each(self._before):
            self._tallies.add(Trial(one.block, one.left, one.right), one.vote.choice)

    @property
    def pairs(self) -> int:
        """All pairs of images that can be voted on."""
        return sum(map(len, self._places.values()))

    def counted(self) -> int:
        """The votes in all files so far."""
        return sum(len(file.votes()) for file in self.files)

    def notes(self) -> list[str]:
        """What a person should know before."""
        return [*self.comparison.notes, *(note for file in self.files for note in file.notes)]

    def preview(self) -> str:
        """What the votes of one voter can detect."""
        return preview(min(self._asked, self.pairs), len(self.comparison.candidates))

    def start(self, voter: str) -> dict[str, Any]:
        """The voter's open pair, and how far the voter is."""
        with self._lock:
            return self._state(self._voter(voter))

    def vote(self, voter: str, identity: str, choice: str, seconds: float) -> dict[str, Any]:
        """Keep a vote; on the disk when this returns. The same vote again changes nothing."""
        if choice not in CHOICES:
            raise Rejected(400, f"choice is one of {', '.join(CHOICES)}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= SLOWEST:
            raise Rejected(400, "seconds is a number from 0 to 86400")
        with self._lock:
            own = self._known(voter, identity)
            if own.open is not None and own.open[0] == identity:
                trial = own.open[1]
                self.files[trial.block[0]].write([self._vote(voter, identity, trial, choice, seconds)])
                self._cast(own, identity, trial, choice, float(seconds))
            else:
                again = [cast for one, cast, said in own.cast if identity == one and choice == said]
                if not again:
                    raise Rejected(409, "This pair is not open: it was voted on, skipped, or taken back.")
                trial = again[0]
            state = self._state(own)
        try:
            self.files[trial.block[0]].sync()  # without the lock: one sync for all who wait
        except OSError:
            with self._lock:
                self._fail(own, identity)
            raise
        return state

    def skip(self, voter: str, identity: str) -> dict[str, Any]:
        """Another pair in place of the open one."""
        with self._lock:
            own = self._known(voter, identity)
            if own.open is not None and own.open[0] == identity:
                own.order.skip(own.open[1])
                own.open = None
            return self._state(own)

    def undo(self, voter: str) -> dict[str, Any]:
        """Take back the last vote of this session; its pair is open again, under a new id."""
        with self._lock:
            own = self._voter(voter)
            if not own.cast:
                raise Rejected(409, "There is no vote of this session to take back.")
            identity, trial, _ = own.cast[-1]
            self.files[trial.block[0]].remove(identity)
            self._uncast(own)
            own.open = self._issue(voter, trial)
            return self._state(own)

    def more(self, voter: str) -> dict[str, Any]:
        """Some more pairs."""
        with self._lock:
            own = self._voter(voter)
            own.order.more(MORE)
            return self._state(own)

    def _cast(self, own: _Voter, identity: str, trial: Trial, choice: str, seconds: float) -> None:
        own.open = None
        own.order.cast(trial)
        own.cast.append((identity, trial, choice))
        own.seconds.append(seconds)
        self._tallies.add(trial, choice)

    def _uncast(self, own: _Voter) -> None:
        _, trial, choice = own.cast.pop()
        own.seconds.pop()
        own.order.take_back()
        self._tallies.add(trial, choice, sign=-1)

    def _fail(self, own: _Voter, identity: str) -> None:
        """The disk did not take the last vote: it is open again, under the same id, so that it can never count twice."""
        if own.cast and own.cast[-1][0] == identity:
            trial = own.cast[-1][1]
            with suppress(OSError):
                self.files[trial.block[0]].remove(identity)
            self._uncast(own)
            own.open = identity, trial

    def _vote(self, voter: str, identity: str, trial: Trial, choice: str, seconds: float) -> Vote:
        row = self.comparison.cells[trial.block]
        left, right = row[trial.left].key, row[trial.right].key
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return Vote(id=identity, left=left, right=right, choice=choice, voter=voter, seconds=round(float(seconds), 3), at=at)

    def _voter(self, name: str) -> _Voter:
        if self.voter is not None and name != self.voter:
            raise Rejected(403, "This session is another voter's.")
        try:
            check_voter(name)
        except Refused as error:
            raise Rejected(400, str(error)) from None
        if name not in self._voters:
            if len(self._voters) >= 1000:
                raise Rejected(403, "There are 1,000 voters already.")
            seen = [one for one in self._before if one.vote.voter == name]
            order = Order(self.comparison, self._tallies, voter=name, seed=self._seed, asked=self._asked, seen=seen, places=self._places)
            self._voters[name] = _Voter(name, order)
        return self._voters[name]

    def _known(self, voter: str, identity: str) -> _Voter:
        own = self._voter(voter)
        if not isinstance(identity, str) or self._issued.get(identity) != voter:
            raise Rejected(409, "This pair was not shown to this voter in this session.")
        return own

    def _issue(self, voter: str, trial: Trial) -> tuple[str, Trial]:
        identity = secrets.token_hex(12)
        self._issued[identity] = voter
        return identity, trial

    def _state(self, own: _Voter) -> dict[str, Any]:
        """What the page shows next."""
        if own.open is None:
            trial = own.order.next()
            own.open = None if trial is None else self._issue(own.name, trial)
        left = own.order.total - own.order.done
        state: dict[str, Any] = {
            "trial": None if own.open is None else self._shown(*own.open),
            "done": own.order.done,
            "total": own.order.total,
            "seconds_left": round(median(own.seconds) * left, 1) if own.seconds else None,
            "undo": bool(own.cast),
            "more": own.order.left_over() > 0,
            "worth": "",
        }
        if own.open is None:
            state["worth"] = self._worth()
        return state

    def _shown(self, identity: str, trial: Trial) -> dict[str, Any]:
        row = self.comparison.cells[trial.block]
        left, right = row[trial.left], row[trial.right]
        names = {side: image_id(self._salt, cell.key) for side, cell in (("left", left), ("right", right))}
        return {"id": identity, **names, "prompt": shown_prompt(left, right)}

    def _worth(self) -> str:
        """How many votes are still worth it, without a name."""
        ballots = [(number, vote) for number, file in enumerate(self.files) for vote in file.votes()]
        if self._worth_at is None or len(ballots) > self._worth_at[0] * 1.05:  # of many votes a few change nothing
            found = first_of_each(outcomes(self.comparison, ballots)[0])
            self._worth_at = len(ballots), worth(rank_outcomes(self.comparison, found), blind=True)
        return self._worth_at[1]
