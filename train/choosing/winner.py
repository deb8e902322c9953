"""What the votes decide: a winner that is kept under an alias, or that nobody can tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.values import number
from infer.vote.finished import FinishedGrid
from infer.vote.ranking.rank import Ranking, rank_grids, read_ballots
from infer.vote.ranking.table import leaders
from train.choosing.candidates import BASE, Candidate
from train.choosing.choice import Choice
from train.choosing.chosen_file import keep_chosen
from train.choosing.drawn import AXIS

if TYPE_CHECKING:
    from registry.record import Record
    from registry.store import Store

ALIAS = "best"


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    """A choice with its ranking. `step` None: nothing was changed. `weight` None: the votes cannot tell the weights apart."""

    choice: Choice
    grid: Path
    ranking: Ranking
    sentence: str
    step: int | None = None
    weight: float | None = None
    record: Record | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        named = {one.label: one for one in self.choice.candidates}
        rows = []
        for row in self.ranking.to_json()["candidates"]:
            own = named.get(first_name(row["value"]))
            rows.append({"step": own.step if own else None, "weight": own.weight if own else None, **row})
        winner = None if self.step is None else {"step": self.step, "weight": self.weight}
        return {
            "run": str(self.choice.run.folder),
            "grid": str(self.grid),
            "candidates": rows,
            "verdict": self.sentence,
            "winner": winner,
            "weight": self.weight,
            "alias": None if self.record is None else f"{self.choice.name}@{ALIAS}",
            "adapter": None if self.record is None else self.record.path,
            "sha256": None if self.record is None else self.record.hashes.sha256,
            "votes": self.ranking.votes,
            "ranking": self.ranking.to_json(),
        }


def first_name(label: str) -> str:
    """The first of candidates that are the very same images."""
    return label.split(" = ")[0]


def choose_winner(choice: Choice, grid: FinishedGrid, store: Store, *, seed: int = 0) -> ChoiceResult:
    """Rank by the votes in the grid's folder; where they name a checkpoint, keep it as NAME@best. Raises WriteFailed."""
    ballots, notes = read_ballots([grid])
    ranking = rank_grids([grid], ballots, axes=(AXIS,), seed=seed, notes=notes)
    best = _leading(choice, ranking)
    if isinstance(best, str):
        return ChoiceResult(choice=choice, grid=grid.folder, ranking=ranking, sentence=f"{ranking.verdict} {best}")
    weights = {one.weight for one in best}
    weight = best[0].weight if len(weights) == 1 else None
    record = keep_chosen(choice, best[0].step, weight, votes=ranking.votes, store=store)
    store.alias(record.id, ALIAS, of=choice.name)
    known = f"Draw it at a weight of {number(weight)}" if weight is not None else _open_weights(best)
    sentence = f"{ranking.verdict} {choice.name}@{ALIAS} is step {best[0].step} now. {known}."
    return ChoiceResult(
        choice=choice, grid=grid.folder, ranking=ranking, sentence=sentence, step=best[0].step, weight=weight, record=record
    )


def _open_weights(best: list[Candidate]) -> str:
    shown = " and ".join(number(one.weight) for one in sorted(best))
    return f"The votes cannot tell its weights apart, {shown}: none is written into the file"


def _leading(choice: Choice, ranking: Ranking) -> list[Candidate] | str:
    """The candidates of one checkpoint to which every other is shown to be inferior, the strongest first; else why there are none."""
    table = ranking.table
    if len(table.parts) > 1 or len(table.parts[0]) < 2:
        return "Nothing is changed."
    top, near = leaders(table)
    named = {one.label: one for one in choice.candidates}
    names = [first_name(ranking.comparison.candidates[number]) for number in (top, *(one for one in near if one != top))]
    if names == [BASE]:
        return "No checkpoint is chosen: the base alone is preferred. Nothing is changed."
    if BASE in names or len({named[name].step for name in names}) > 1:
        return "Nothing is changed."
    return [named[name] for name in names]
