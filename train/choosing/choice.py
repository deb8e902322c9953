"""The plan of a choice: which images are drawn, everything checked, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.grid.config import Axes, GridConfig
from infer.grid.job import cells_of
from infer.grid.plan import GridPlan, duration, plan_grid
from infer.prompt.prompt_file import prompt_lines
from infer.vote.ranking.verdict import preview
from registry.errors import Faults, Refused
from registry.printable import as_lines, counted, shell_line
from registry.references import check_name
from train.choosing.candidates import BASE, MOST, Candidate, read_steps, read_weights
from train.judging.draw import NONE, check_drawable, grid_settings
from train.judging.run import evenly
from train.loop import checkpoint
from train.plan.checks import Attempts
from train.run_report.read import RunFiles, read_run

if TYPE_CHECKING:
    from registry.store import Store

FOLDER = "choosing"  # of the run folder: the grids, and the adapters that were chosen
PROMPTS, SEEDS = 12, 2


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A choice that can be drawn. `candidates` are in the order of the grid's adapters, behind the base."""

    run: RunFiles
    name: str
    candidates: tuple[Candidate, ...]
    grid: GridPlan
    prompts: tuple[str, ...]
    votes: int

    @property
    def folder(self) -> Path:
        """Where grids of these very images lie: the same question again finds its images and votes."""
        keys = "\n".join(sorted({cell.render.key() for cell in self.grid.cells}))
        return self.run.folder / FOLDER / sha256(keys.encode()).hexdigest()[:12]

    def label(self, place: int) -> str:
        """The name of the adapter axis's value at this place."""
        return self.candidates[place - 1].label if place else BASE

    def to_json(self) -> dict[str, Any]:
        """The plan, plain values with stable keys."""
        return {
            "run": str(self.run.folder),
            "candidates": [BASE, *(one.label for one in self.candidates)],
            "prompts": list(self.prompts),
            "alias": f"{self.name}@best",
            "votes": self.votes,
            "detects": self._detects(),
            "grid": self.grid.to_json(),
        }

    def to_text(self) -> str:
        """The plan for a person."""
        left = self.grid.distinct - self.grid.stored
        time = "" if self.grid.seconds is None or not left else f", about {duration(self.grid.seconds)}"
        return as_lines(
            [
                f"{counted(len(self.candidates), 'candidate')} and the base on {counted(len(self.prompts), 'prompt')}: "
                f"{counted(self.grid.distinct, 'image')}, {left} to draw{time}",
                *(f"  {one.label}" for one in self.candidates),
                f"{counted(self.votes, 'vote')}: {self._detects()}",
                f"the winner becomes {self.name}@best",
                *(f"note: {note}" for note in self.grid.notes),
            ]
        )

    def _detects(self) -> str:
        return preview(self.votes, len(self.candidates) + 1)


def plan_choice(
    folder: Path,
    store: Store,
    *,
    checkpoints: str | None = None,
    weights: str | None = None,
    prompts: int = PROMPTS,
    given_prompts: Sequence[str] = (),
    seeds: int = SEEDS,
    votes: int = 60,
) -> Choice:
    """Everything checked, nothing loaded. Raises WriteFailed for a home that keeps nothing, Refused, or Faults with all that is wrong."""
    store.check_writable()
    attempts = Attempts()
    heavy = attempts(lambda: read_weights(weights))
    run = attempts(lambda: _choosable(folder))
    name = str(run.config.name or run.folder.parent.name) if run else ""
    steps = texts = None
    if run:
        found = run
        attempts(lambda: check_name(name))
        steps = attempts(lambda: read_steps(found, checkpoints))
        texts = attempts(lambda: _prompts(found, prompts, given_prompts))
    candidates = tuple(Candidate(step, weight) for step in steps for weight in heavy) if steps and heavy else ()
    if len(candidates) > MOST:
        attempts.faults.append(
            f"{counted(len(candidates), 'candidate is', 'candidates are')} more than {MOST}, the "
            "most that are ranked. Give fewer --checkpoints."
        )
    grid = None
    if run and texts and 0 < len(candidates) <= MOST:
        grid = attempts(lambda: _grid(found, candidates, texts, seeds, store))
    if len(attempts.faults) == 1:
        raise Refused(attempts.faults[0])
    if attempts.faults or run is None or grid is None or texts is None:
        raise Faults("Nothing can be chosen from this run as it is:", attempts.faults)
    return Choice(run=run, name=name, candidates=candidates, grid=grid, prompts=texts, votes=votes)


def _choosable(folder: Path) -> RunFiles:
    run = read_run(folder)
    check_drawable(run)
    if run.config.tokens.add:
        raise Refused(
            f"{run.folder} trained new tokens: each checkpoint has vectors of its own beside the adapter, and an alias names one file."
            f" Compare them by their images: {shell_line('loraloom', 'judge', run.folder)}"
        )
    return run


def _prompts(run: RunFiles, count: int, given: Sequence[str]) -> tuple[str, ...]:
    """Those that are given, lines of @FILE among them; else captions of held-out images. Raises Refused."""
    found = [text for one in given for text in prompt_lines(one)]
    if given:
        return tuple(dict.fromkeys(found))
    held = [str(row["prompt"]) for row in run.heldout if str(row["prompt"]).strip()]
    if not held:
        raise Refused(
            f"{run.folder} held out no captioned images, whose prompts would be drawn. Give prompts that it was not trained on: "
            "--prompt TEXT, several by repeating, or --prompt @prompts.txt."
        )
    return tuple(evenly(held, count))


def _grid(run: RunFiles, candidates: Sequence[Candidate], prompts: Sequence[str], seeds: int, store: Store) -> GridPlan:
    """The grid of the candidates and the base. Raises Faults, Refused: the base is another one than the run was trained on."""
    files = [f"{run.checkpoints[one.step] / checkpoint.ADAPTER}:{one.weight!r}" for one in candidates]
    axes = Axes(adapter=[NONE, *files], prompt=list(prompts))
    config = GridConfig(**grid_settings(run, seeds=seeds) | {"name": "grid", "axes": axes, "out": str(run.folder / FOLDER)})
    planned = plan_grid(config, store, cells_of(store))
    trained, now = run.inputs["base"]["sha256"], planned.cells[0].render.base_sha256
    if trained != now:
        raise Refused(
            f"The base {run.config.base} is another one than the run was trained on (sha256 {str(now)[:12]}, was {str(trained)[:12]})."
            " Put that base back under its name."
        )
    labels = (BASE, *(one.label for one in candidates))
    dimensions = tuple(replace(one, labels=labels) if one.name == "adapter" else one for one in planned.layout.dimensions)
    return replace(planned, layout=replace(planned.layout, dimensions=dimensions))
