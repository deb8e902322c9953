"""`loraloom judge RUN`: plan, draw, measure, and leave judgement.json in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.formats.atomic_file import write_json
from registry.printable import as_lines
from registry.progress import Report, silent
from train.judging.draw import Drawing, check_drawable, drawn, plan_drawing
from train.judging.table import Images, ImageTable, table_of
from train.run_report.read import JUDGEMENT, RunFiles, read_run
from train.run_report.set_images import SetImage, heldout_images, training_images

if TYPE_CHECKING:
    from registry.store import Store

PROMPTS = 8  # of the held-out images, evenly over them
SEEDS = 2
GENERIC = ("a cat", "a house", "a red car", "a tree", "a portrait of a woman", "a bowl of fruit")


@dataclass(frozen=True, kw_only=True)
class Judging:
    """A judgement that is planned: what is drawn, and what it is held against."""

    run: RunFiles
    own: Drawing
    generic: Drawing | None
    heldout: Sequence[SetImage]
    trained: Sequence[SetImage]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan, plain values with stable keys."""
        grids = {"heldout": self.own.planned.to_json(), "generic": None if self.generic is None else self.generic.planned.to_json()}
        return {"run": str(self.run.folder), "checkpoints": list(self.run.checkpoints), "grids": grids, "notes": list(self.notes)}

    def to_text(self) -> str:
        """The plan for a person."""
        both = [self.own.planned, *([self.generic.planned] if self.generic else [])]
        images = sum(grid.distinct for grid in both)
        left = images - sum(grid.stored for grid in both)
        other = f" and {len(self.generic.prompts)} generic ones" if self.generic else ""
        what = (
            f"{len(self.run.checkpoints)} checkpoints and the base: {len(self.own.prompts)} held-out prompts{other}, {self.own.seeds} seeds"
        )
        lines = [f"{what}: {images} images, {left} to draw", *(f"note: {note}" for note in self.notes)]
        return as_lines(lines)


def plan_judging(
    folder: Path,
    store: Store,
    *,
    prompts: int = PROMPTS,
    seeds: int = SEEDS,
    generic: Sequence[str] = GENERIC,
    report: Report = silent,
) -> Judging:
    """Everything checked, nothing loaded. Raises Refused, or Faults."""
    run = read_run(folder)
    check_drawable(run)
    heldout, notes = heldout_images(run.config, run.heldout, report=report)
    if len(heldout) < 2:
        raise Refused(
            f"{run.folder}: {len(heldout)} held-out images are there, and two are needed to compare with. Train with heldout.path=FOLDER "
            f"or heldout.share=0.1. {' '.join(notes)}"
        )
    trained, more = training_images(run.config, run.trained, report=report)
    texts = list(dict.fromkeys(image.prompt for image in heldout))
    chosen = texts if len(texts) <= prompts else [texts[place * len(texts) // prompts] for place in range(prompts)]
    own = plan_drawing(run, chosen, "heldout", store, seeds=seeds)
    other = plan_drawing(run, list(generic), "generic", store, seeds=seeds) if generic else None
    return Judging(run=run, own=own, generic=other, heldout=heldout, trained=trained, notes=(*notes, *more, *_few(chosen, seeds)))


def _few(prompts: Sequence[str], seeds: int) -> list[str]:
    from train.judging.intervals import SMALLEST

    notes = [] if len(prompts) >= SMALLEST else [f"{len(prompts)} prompts are too few for intervals: these images cannot tell"]
    return notes if seeds > 1 else [*notes, "one seed: drift has no scale, and is not measured"]


def judge_run(planned: Judging, store: Store, *, report: Report = silent) -> tuple[ImageTable, dict[str, Any]]:
    """Draw and measure; gives the table, and what judgement.json holds. Raises JobFailed where an image cannot be drawn."""
    own, place = drawn(planned.own, store, report=report)
    generic, other = drawn(planned.generic, store, report=report) if planned.generic else ({}, None)
    found = table_of(
        Images(
            own=own,
            generic=generic,
            heldout=[image.image for image in planned.heldout],
            trained=[image.image for image in planned.trained],
            losses=_losses(planned.run),
        )
    )
    value = {
        **found.to_json(),
        "prompts": list(planned.own.prompts),
        "generic_prompts": list(planned.generic.prompts) if planned.generic else [],
        "seeds": planned.own.seeds,
        "grids": [str(path) for path in (place, other) if path is not None],
        "notes": list(planned.notes),
    }
    write_json(planned.run.folder / JUDGEMENT, value)
    return found, value


def _losses(run: RunFiles) -> Mapping[int, float]:
    """Mean held-out loss by step, 0: the base's."""
    if run.history is None or not run.history.base:
        return {}
    rows = [(0, run.history.base), *((int(row["step"]), row["losses"]) for row in run.history.heldout)]
    return {step: fsum(losses) / len(losses) for step, losses in rows}
