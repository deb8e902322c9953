"""What was voted: the votes of grids and of preference data sets as ballots on images by their content, and what was found beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from registry.printable import counted

Read = Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """One vote between two images, which are named by the sha256 of their files. `prompt` None: the two have not one prompt."""

    id: str
    voter: str
    prompt: str | None
    left: str
    right: str
    choice: str  # left, right, tie or both_bad


@dataclass
class Ballots:
    """The votes of all sources. `images`: by sha256 the name of each image and what reads its file."""

    votes: list[Ballot] = field(default_factory=list)
    images: dict[str, tuple[str, Read]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    gone: int = 0  # votes on images that their grid has no longer


@dataclass(frozen=True)
class Pair:
    """Two images of a prompt, and which of them people preferred."""

    prompt: str
    preferred: str  # sha256
    rejected: str


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How votes became pairs. All but `pairs`, `undecided` and `disputed` count votes, `voters` people."""

    votes: int = 0
    voters: int = 0
    pairs: int = 0
    repeated: int = 0  # beyond the first on a pair
    disputed: int = 0  # pairs on which someone preferred the other image
    undecided: int = 0  # pairs, left out: as many for the one image as for the other
    tie: int = 0
    both_bad: int = 0
    two_prompts: int = 0
    same_image: int = 0
    gone: int = 0

    def to_json(self) -> dict[str, int]:
        """Plain values, stable keys."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def left_out(self) -> str:
        """What was left out, in words; empty where nothing was."""
        kinds = {
            "tie": self.tie,
            "both bad": self.both_bad,
            "between two prompts": self.two_prompts,
            "on one and the same image": self.same_image,
            "on an image that is gone": self.gone,
        }
        parts = [f"{count} {kind}" for kind, count in kinds.items() if count]
        parts += [f"{counted(self.undecided, 'pair')} as often the one way as the other"] if self.undecided else []
        return ", ".join(parts)

    def sentence(self) -> str:
        """98 pairs of 120 votes by 2 voters, and what was left out."""
        text = f"{counted(self.pairs, 'pair')} of {counted(self.votes, 'vote')} by {counted(self.voters, 'voter')}"
        if self.repeated:
            text += f"; {counted(self.repeated, 'vote')} on a pair again: each voter is one voice on it, and the majority counts"
        if self.disputed:
            text += f"; on {counted(self.disputed, 'pair')} not all agreed"
        return text + (f"; left out: {found}" if (found := self.left_out()) else "")


def pairs_of(found: Ballots) -> tuple[list[Pair], Tally]:
    """The pairs, in an order that depends on their content alone, and how the votes became them.

    A pair counts once, however often it was voted on: each voter is one voice (what that voter preferred more often), and the majority of
    the voices counts. Weighing a pair by its votes would let pairs that the page repeats, to measure the voter, count twice.
    """
    dropped: Counter[str] = Counter()
    nets: dict[tuple[str, str, str], Counter[str]] = {}
    repeated = 0
    for vote in found.votes:
        reason = _dropped(vote)
        if reason:
            dropped[reason] += 1
            continue
        assert vote.prompt is not None
        first, second = sorted((vote.left, vote.right))
        voices = nets.setdefault((vote.prompt, first, second), Counter())
        repeated += bool(voices)
        chosen = vote.left if vote.choice == "left" else vote.right
        voices[vote.voter] += 1 if chosen == first else -1
    pairs, undecided, disputed = [], 0, 0
    for (prompt, first, second), voices in sorted(nets.items()):
        signs = [(net > 0) - (net < 0) for net in voices.values()]
        total = sum(signs)
        if total == 0:
            undecided += 1
            continue
        disputed += min(signs) < 0 < max(signs)
        pairs.append(Pair(prompt, *((first, second) if total > 0 else (second, first))))
    tally = Tally(
        votes=len(found.votes) + found.gone,
        voters=len({vote.voter for vote in found.votes}),
        pairs=len(pairs),
        repeated=repeated,
        disputed=disputed,
        undecided=undecided,
        gone=found.gone,
        **dropped,
    )
    return pairs, tally


def _dropped(vote: Ballot) -> str | None:
    """Why a vote is on no pair, as Tally names it."""
    if vote.choice in ("tie", "both_bad"):
        return vote.choice
    if vote.prompt is None:
        return "two_prompts"
    return "same_image" if vote.left == vote.right else None


def once(votes: Iterable[Ballot]) -> tuple[list[Ballot], list[str]]:
    """The votes, each id once, and the faults of ids that are of two votes."""
    seen: dict[str, Ballot] = {}
    faults = []
    for vote in votes:
        if seen.setdefault(vote.id, vote) != vote:
            faults.append(f"the id {vote.id} is of two votes that differ")
    return list(seen.values()), faults


def at_most(faults: Sequence[str], most: int = 10) -> list[str]:
    """The first faults, and how many there are beside them."""
    return [*faults[:most], *([f"and {len(faults) - most} more"] if len(faults) > most else [])]


def plain(value: Any) -> str | None:
    """A prompt on one line; None for what is none."""
    return " ".join(value.split()) or None if isinstance(value, str) else None
