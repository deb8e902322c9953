"""The ranking of finished grids by their votes, as values: what `loraloom rank` shows, prints and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer.vote.comparison import Comparison, choose_axes, compare, first_of_each, outcomes
from infer.vote.finished import FinishedGrid
from infer.vote.ranking.scores import ScoreJudgement, judge_scores
from infer.vote.ranking.table import Pair, Table, rank_outcomes
from infer.vote.ranking.verdict import verdict, worth
from infer.vote.ranking.voters import Voters, measure_voters
from infer.vote.returned import read_returned
from infer.vote.votes import NAME, Vote, read_votes
from registry.printable import counted, one_line

FEW = 5  # prompts: a verdict over fewer says little of other prompts


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All that the votes say of one comparison."""

    comparison: Comparison
    table: Table
    voters: Voters
    scores: tuple[ScoreJudgement, ...]
    verdict: str
    worth: str
    votes: int  # counted: the first of each voter on each pair
    repeats: int
    notes: tuple[str, ...]

    @property
    def axis(self) -> str:
        return ",".join(self.comparison.axes)

    def order(self) -> list[int]:
        """Candidates, the strongest first; those without a strength at the end."""
        rows = self.table.candidates
        return sorted(range(len(rows)), key=lambda number: (rows[number].strength is None, -(rows[number].strength or 0.0)))

    def to_json(self) -> dict[str, Any]:
        """Candidates by strength; every number that is not known is null."""
        rows, pairs = self.table.candidates, [self._pair(pair) for pair in self.table.pairs]
        return {
            "axis": self.axis,
            "candidates": [rows[number].to_json() for number in self.order()],
            "pairs": pairs,
            "verdict": self.verdict,
            "votes": self.votes,
            "worth": self.worth,
            "repeats": self.repeats,
            "grouped_by": self.comparison.grouped_by,
            "groups": self.table.groups,
            "design_effect": self.table.effect,
            "left_side": {**self.voters.left.to_json(), "p_value": self.voters.side_p},
            "self_agreement": self.voters.repeats.to_json(),
            "agreement": self.voters.agreement.to_json(),
            "voters": [one.to_json() for one in self.voters.each],
            "scores": [one.to_json() for one in self.scores],
            "notes": list(self.notes),
        }

    def _pair(self, pair: Pair) -> dict[str, Any]:
        names = self.comparison.candidates
        halves = None if pair.halves is None else dict(zip(("p", "low", "high"), pair.halves, strict=True))
        return {
            "a": names[pair.a],
            "b": names[pair.b],
            "p": pair.p,
            "low": pair.low,
            "high": pair.high,
            "p_value": pair.p_value,
            "p_value_single": pair.p_single,
            "wins": pair.wins,
            "losses": pair.losses,
            "ties": pair.ties,
            "ties_as_half": halves,
        }


def read_ballots(grids: Sequence[FinishedGrid], file: Path | None = None) -> tuple[list[tuple[int, Vote]], list[str]]:
    """The votes in the grids' folders, or those of one file; each with the number of its grid, and notes."""
    if file is not None:
        return read_returned(file, grids)
    found = [read_votes(grid.folder / NAME) for grid in grids]
    return [(number, vote) for number, one in enumerate(found) for vote in one.votes], [note for one in found for note in one.notes]


def rank_grids(
    grids: Sequence[FinishedGrid],
    ballots: Sequence[tuple[int, Vote]],
    *,
    axes: tuple[str, ...] | None = None,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Ranking:
    """The ranking. Raises Refused where it is not clear what is compared."""
    found = compare(grids, choose_axes(grids, axes, [vote for _, vote in ballots]))
    every, apart = outcomes(found, ballots)
    counted = first_of_each(every)
    table = rank_outcomes(found, counted, seed=seed)
    said = [*notes, *found.notes, *_notes(found, table, apart)]
    return Ranking(
        comparison=found,
        table=table,
        voters=measure_voters(every),
        scores=judge_scores(found, counted),
        verdict=verdict(table),
        worth=worth(table),
        votes=len(counted),
        repeats=len(every) - len(counted),
        notes=tuple(said),
    )


def _notes(found: Comparison, table: Table, apart: int) -> list[str]:
    notes = []
    if apart:
        notes.append(
            f"{counted(apart, 'vote is', 'votes are')} on pairs that differ in another axis, or on cells "
            "that are no longer in the grid: they do not count here."
        )
    for one in table.candidates:
        if one.separated is not None:
            far = "larger" if one.separated == "won" else "smaller"
            notes.append(
                f"{one_line(one.value)} {one.separated} every decisive vote: its strength is finite only by a prior of half a win"
                f" and half a loss, and may be much {far}."
            )
    if found.grouped_by != "prompt":
        notes.append(f"There is one prompt, so votes are grouped by {found.grouped_by}: this holds for that prompt.")
    elif 0 < table.groups < FEW:
        notes.append(f"There are votes on {counted(table.groups, 'prompt')} only: the verdict says little of other prompts.")
    return notes
