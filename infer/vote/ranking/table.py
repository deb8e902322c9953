"""Votes to a ranking: strengths, every pair, and what may be concluded.

Two candidates: the share of decisive votes with Wilson's interval, and the exact sign test. More: Davidson's model. Votes on one prompt may
depend on one another, so prompts are the unit: intervals hold the design effect of the prompts, the test flips whole prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erfc, exp, sqrt
from typing import Any

from infer.vote.comparison import Comparison, Outcome
from infer.vote.ranking import davidson
from infer.vote.ranking.binomial import LEVEL, Z, design_effect, flip_test, holm, wilson

DRAWS = 4000  # of the strengths, for the chance that each is the best


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One candidate. Strengths are log odds against the average candidate; None where too few votes connect it with the others."""

    value: str
    wins: int
    losses: int
    ties: int
    both_bad: int
    strength: float | None = None
    low: float | None = None
    high: float | None = None
    p_best: float | None = None

    @property
    def separated(self) -> str | None:
        """ "won" or "lost" where all its decisive votes ended so: its strength is finite through the prior alone."""
        if self.wins and not self.losses:
            return "won"
        return "lost" if self.losses and not self.wins else None

    def to_json(self) -> dict[str, Any]:
        numbers = {"strength": self.strength, "low": self.low, "high": self.high, "p_best": self.p_best}
        votes = {"value": self.value, "wins": self.wins, "losses": self.losses, "ties": self.ties, "both_bad": self.both_bad}
        return {**votes, **numbers, "separated": self.separated}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two candidates, by number: the share `p` of decisive votes that the first wins, its interval, and p values.

    `p_value` is Holm's, over all pairs. All None where no votes connect the two.
    """

    a: int
    b: int
    wins: int
    losses: int
    ties: int
    p: float | None = None
    low: float | None = None
    high: float | None = None
    p_single: float | None = None
    p_value: float | None = None
    halves: tuple[float, float, float] | None = None  # the same share and interval with each tie as half a win


@dataclass(frozen=True, kw_only=True)
class Table:
    """The ranking of a comparison's candidates, in their order."""

    candidates: tuple[Ranked, ...]
    pairs: tuple[Pair, ...]
    groups: int  # prompts with votes
    effect: float  # the design effect
    parts: tuple[tuple[int, ...], ...]  # candidates that votes connect, the part with most votes first


def rank_outcomes(found: Comparison, counted: Sequence[Outcome], *, seed: int = 0) -> Table:
    """The table of outcomes, each pair of images once a voter."""
    names = found.candidates
    pairs = list(combinations(range(len(names)), 2))
    prompts = list(dict.fromkeys(one.prompt for one in counted))
    groups = _groups(pairs, prompts, counted)
    parts = _parts(len(names), counted)
    tallies = [_tally(name, number, counted) for number, name in enumerate(names)]
    made = [_pair(pair, counted) for pair in pairs]
    effect = 1.0
    if len(names) == 2 and counted:
        made, effect = [_two(made[0], groups)], _effect_of_two(groups)
    if len(parts[0]) > 1:
        tallies, made, fitted = _fitted(parts[0], pairs, groups, tallies, made, seed)
        effect = fitted if len(names) > 2 else effect
    return Table(candidates=tuple(tallies), pairs=tuple(made), groups=len(prompts), effect=effect, parts=parts)


def _groups(pairs: Sequence[tuple[int, int]], prompts: Sequence[str], counted: Sequence[Outcome]) -> Any:
    """(G, P, 3): wins of the first, of the second, and ties (both bad too) of each prompt and pair."""
    import numpy

    table = numpy.zeros((len(prompts), len(pairs), 3))
    place, row = {pair: index for index, pair in enumerate(pairs)}, {prompt: index for index, prompt in enumerate(prompts)}
    for one in counted:
        pair = (min(one.left, one.right), max(one.left, one.right))
        table[row[one.prompt], place[pair], 2 if one.winner is None else pair.index(one.winner)] += 1
    return table


def _parts(candidates: int, counted: Sequence[Outcome]) -> tuple[tuple[int, ...], ...]:
    """The candidates in connected parts, the one with the most votes first."""
    part = list(range(candidates))
    for one in counted:
        old, new = part[one.left], part[one.right]
        part = [new if label == old else label for label in part]
    votes = {label: sum(part[one.left] == label for one in counted) for label in part}
    labels = sorted(dict.fromkeys(part), key=lambda label: -votes[label])
    return tuple(tuple(number for number in range(candidates) if part[number] == label) for label in labels)


def _tally(name: str, number: int, counted: Sequence[Outcome]) -> Ranked:
    own = [one for one in counted if number in (one.left, one.right)]
    choices = [one.vote.choice for one in own]
    wins = sum(one.winner == number for one in own)
    ties, both = choices.count("tie"), choices.count("both_bad")
    return Ranked(value=name, wins=wins, losses=len(own) - wins - ties - both, ties=ties, both_bad=both)


def _pair(pair: tuple[int, int], counted: Sequence[Outcome]) -> Pair:
    own = [one.winner for one in counted if {one.left, one.right} == set(pair)]
    return Pair(a=pair[0], b=pair[1], wins=own.count(pair[0]), losses=own.count(pair[1]), ties=own.count(None))


def _effect_of_two(groups: Any) -> float:
    return design_effect([*groups[:, 0, 0]], [*groups[:, 0, :2].sum(-1)]) if groups[:, 0, :2].sum() else 1.0


def _two(pair: Pair, groups: Any) -> Pair:
    """Two candidates: Wilson's interval of the decisive votes over their design effect, and the exact test over prompts."""
    from dataclasses import replace

    votes, halves, every = pair.wins + pair.losses, pair.wins + pair.ties / 2, pair.wins + pair.losses + pair.ties
    effect = _effect_of_two(groups)
    tied = design_effect([*(groups[:, 0, 0] + groups[:, 0, 2] / 2)], [*groups[:, 0].sum(-1)])
    test = flip_test([int(net) for net in groups[:, 0, 0] - groups[:, 0, 1]])
    half = (halves / every, *wilson(halves / tied, every / tied))
    if not votes:
        return replace(pair, p_single=1.0, p_value=1.0, p=0.5, low=0.0, high=1.0, halves=half)
    low, high = wilson(pair.wins / effect, votes / effect)
    return replace(pair, p=pair.wins / votes, low=low, high=high, p_single=test, p_value=test, halves=half)


def _fitted(
    part: tuple[int, ...],
    pairs: Sequence[tuple[int, int]],
    groups: Any,
    tallies: Sequence[Ranked],
    made: Sequence[Pair],
    seed: int,
) -> tuple[list[Ranked], list[Pair], float]:
    """The candidates of one connected part with their strengths, its pairs with their shares, and the design effect."""
    from dataclasses import replace

    import numpy

    inside = [index for index, pair in enumerate(pairs) if set(pair) <= set(part)]
    own = [(part.index(pairs[index][0]), part.index(pairs[index][1])) for index in inside]
    voted = groups[:, inside]
    found = davidson.fit(own, voted.sum(0)[None], len(part))
    covariance, effect = davidson.spread(own, voted[voted.sum((1, 2)) > 0], found)
    strengths = found.strengths[0]
    draws = numpy.random.default_rng(seed).multivariate_normal(strengths, covariance, DRAWS, check_valid="ignore")
    best = numpy.bincount(draws.argmax(-1), minlength=len(part)) / DRAWS
    ranked, shares = list(tallies), list(made)
    for place, number in enumerate(part):
        strength, reach = float(strengths[place]), Z * sqrt(float(covariance[place, place]))
        ranked[number] = replace(ranked[number], strength=strength, low=strength - reach, high=strength + reach, p_best=float(best[place]))
    if len(pairs) == 1:
        return ranked, shares, effect
    tests = []
    for index, (a, b) in zip(inside, own, strict=True):
        gap = float(strengths[a] - strengths[b])
        error = sqrt(max(float(covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]), 1e-12))
        low, middle, high = (1 / (1 + exp(-value)) for value in (gap - Z * error, gap, gap + Z * error))
        tests.append(erfc(abs(gap) / error / sqrt(2)))
        shares[index] = replace(shares[index], p=middle, low=low, high=high, p_single=tests[-1])
    for index, adjusted in zip(inside, holm(tests), strict=True):
        shares[index] = replace(shares[index], p_value=adjusted)
    return ranked, shares, effect


def leaders(table: Table) -> tuple[int, list[int]]:
    """The strongest candidate, and those of its part that are not shown to be worse, by Holm's p values; itself among them."""
    part = table.parts[0]
    top = max(part, key=lambda number: (table.candidates[number].strength or 0.0, -number))
    by_pair = {frozenset((pair.a, pair.b)): pair.p_value for pair in table.pairs}
    return top, [number for number in part if number == top or (by_pair[frozenset((top, number))] or 0.0) >= LEVEL]
