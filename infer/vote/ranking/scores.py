"""Scores judged by votes: how often the higher score is the image that was preferred, and how the two rank together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from infer.vote.comparison import Comparison, Outcome
from infer.vote.ranking.binomial import design_effect, wilson
from registry.printable import counted

SMALLEST = 4  # prompts: fewer give no interval of a correlation


@dataclass(frozen=True, kw_only=True)
class ScoreJudgement:
    """One score against the decisive votes; `kendall` is tau-b between differences of the score and votes, ties included."""

    name: str
    votes: int  # decisive, on images that both have the score
    agreement: float | None
    low: float
    high: float
    kendall: float | None
    kendall_low: float | None
    kendall_high: float | None

    @property
    def sentence(self) -> str:
        if self.agreement is None:
            return f"{self.name}: no decisive votes on images with this score"
        said = (
            f"{self.name}: agrees with {self.agreement:.0%} of {counted(self.votes, 'decisive vote')} ({self.low:.0%} to {self.high:.0%})"
        )
        if self.low > 0.5:
            return f"{said}: it goes with your votes"
        return (
            f"{said}: it goes against your votes" if self.high < 0.5 else f"{said}: no better than a coin, as far as these votes can tell"
        )

    def to_json(self) -> dict[str, Any]:
        rates = {"score": self.name, "votes": self.votes, "agreement": self.agreement, "low": self.low, "high": self.high}
        return {**rates, "kendall": self.kendall, "kendall_low": self.kendall_low, "kendall_high": self.kendall_high}


def judge_scores(found: Comparison, counted: Sequence[Outcome]) -> tuple[ScoreJudgement, ...]:
    """Every score that both images of a vote have, by name."""
    names = sorted({name for row in found.cells.values() for cell in row.values() for name in cell.scores})
    return tuple(_judge(name, found, counted) for name in names)


def _judge(name: str, found: Comparison, counted: Sequence[Outcome]) -> ScoreJudgement:
    groups: dict[str, list[tuple[float, int]]] = defaultdict(
        list
    )  # prompt -> (left's score minus right's, 1 0 -1: left won, neither, right won)
    for one in counted:
        row = found.cells[one.block]
        left, right = row[one.left].scores.get(name), row[one.right].scores.get(name)
        if left is not None and right is not None:
            groups[one.prompt].append((left - right, 0 if one.winner is None else 1 if one.winner == one.left else -1))
    decisive = {prompt: [(gap, won) for gap, won in rows if won] for prompt, rows in groups.items()}
    right_calls = [sum(0.5 if gap == 0 else float((gap > 0) == (won > 0)) for gap, won in rows) for rows in decisive.values()]
    cast = [len(rows) for rows in decisive.values()]
    votes, right_total = sum(cast), sum(right_calls)
    effect = design_effect(right_calls, cast) if votes else 1.0
    low, high = wilson(right_total / effect, votes / effect)
    tau, tau_low, tau_high = _correlation(groups)
    return ScoreJudgement(
        name=name,
        votes=votes,
        agreement=right_total / votes if votes else None,
        low=low,
        high=high,
        kendall=tau,
        kendall_low=tau_low,
        kendall_high=tau_high,
    )


def _correlation(groups: Mapping[str, Sequence[tuple[float, int]]]) -> tuple[float | None, float | None, float | None]:
    """Kendall's tau-b, and the interval of a jackknife over prompts with Student's t."""
    whole = _tau([row for rows in groups.values() for row in rows])
    if whole is None or len(groups) < SMALLEST:
        return whole, None, None
    without = [_tau([row for prompt, rows in groups.items() if prompt != left for row in rows]) for left in groups]
    known = [value for value in without if value is not None]
    if len(known) < len(groups):
        return whole, None, None
    from scipy.stats import t

    count, mean = len(known), sum(known) / len(known)
    reach = float(t.ppf(0.975, count - 1)) * sqrt((count - 1) / count * sum((value - mean) ** 2 for value in known))
    return whole, max(-1.0, whole - reach), min(1.0, whole + reach)


def _tau(rows: Sequence[tuple[float, int]]) -> float | None:
    """tau-b of both orientations of each pair, so that the sides do not matter; None where one of the two never varies."""
    from scipy.stats import kendalltau

    gaps = [sign * gap for gap, _ in rows for sign in (1, -1)]
    won = [sign * one for _, one in rows for sign in (1, -1)]
    if len(set(gaps)) < 2 or len(set(won)) < 2:
        return None
    return float(kendalltau(gaps, won).statistic)
