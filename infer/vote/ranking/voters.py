"""What the votes say of the voters: the side they prefer, whether they repeat themselves, whether they agree with one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from infer.vote.comparison import Outcome
from infer.vote.ranking.binomial import LEVEL, sign_test, wilson


@dataclass(frozen=True, kw_only=True)
class Share:
    """`of` cases, `count` of them so, with the 95 % Wilson interval."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.count, self.of)

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {"count": self.count, "of": self.of, "share": self.count / self.of if self.of else None, "low": low, "high": high}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.of} ({self.count / self.of:.0%}, {low:.0%} to {high:.0%})" if self.of else "none"


@dataclass(frozen=True, kw_only=True)
class Voter:
    """One voter's votes."""

    name: str
    votes: int
    left: Share
    repeats: Share
    seconds: float  # median

    def to_json(self) -> dict[str, Any]:
        shares = {"left": self.left.to_json(), "self_agreement": self.repeats.to_json()}
        return {"voter": self.name, "votes": self.votes, **shares, "seconds": self.seconds}


@dataclass(frozen=True, kw_only=True)
class Voters:
    """All voters together: decisive votes for the left side, repeats that were answered alike, pairs on which two voters agree."""

    each: tuple[Voter, ...]
    left: Share
    side_p: float
    repeats: Share
    agreement: Share

    def sentences(self) -> list[str]:
        """What a reader should know of them."""
        lines = [f"left side: {self.left} of the decisive votes, p {self.side_p:.3f}"]
        if self.side_p < LEVEL:
            side = "left" if self.left.count * 2 > self.left.of else "right"
            lines[0] += f": the votes lean to the {side} side. Sides were balanced, so it favours nobody, but it is noise"
        if self.repeats.of:
            lines.append(f"self-agreement: {self.repeats} repeated pairs answered alike")
        if len(self.each) > 1:
            lines.append(f"voters: {len(self.each)}; two of them agree on {self.agreement} of what both saw")
        return lines


def measure_voters(found: Sequence[Outcome]) -> Voters:
    """The figures of all outcomes, repeats included."""
    by_voter: dict[str, list[Outcome]] = defaultdict(list)
    for one in found:
        by_voter[one.vote.voter].append(one)
    left = _left(found)
    repeats = [_repeats(own) for own in by_voter.values()]
    each = tuple(
        Voter(name=name, votes=len(own), left=_left(own), repeats=again, seconds=median(one.vote.seconds for one in own))
        for (name, own), again in zip(by_voter.items(), repeats, strict=True)
    )
    return Voters(
        each=each,
        left=left,
        side_p=sign_test(left.count, left.of - left.count),
        repeats=Share(count=sum(one.count for one in repeats), of=sum(one.of for one in repeats)),
        agreement=_agreement(by_voter),
    )


def _left(found: Sequence[Outcome]) -> Share:
    decisive = [one for one in found if one.winner is not None]
    return Share(count=sum(one.winner == one.left for one in decisive), of=len(decisive))


def _answer(one: Outcome) -> int | str:
    """The winner, or tie or both_bad: whatever the side."""
    return one.vote.choice if one.winner is None else one.winner


def _repeats(own: Sequence[Outcome]) -> Share:
    """Later answers on a pair of images, each against the first."""
    first: dict[frozenset[str], Outcome] = {}
    same = total = 0
    for one in own:
        pair = frozenset((one.vote.left, one.vote.right))
        if pair in first:
            total += 1
            same += _answer(one) == _answer(first[pair])
        else:
            first[pair] = one
    return Share(count=same, of=total)


def _agreement(by_voter: dict[str, list[Outcome]]) -> Share:
    """First answers of every two voters on the pairs of images that both saw."""
    answers = [{frozenset((one.vote.left, one.vote.right)): _answer(one) for one in reversed(own)} for own in by_voter.values()]
    both = [(mine[pair], other[pair]) for mine, other in combinations(answers, 2) for pair in mine.keys() & other.keys()]
    return Share(count=sum(one == two for one, two in both), of=len(both))
