"""`loraloom judge RUN`: plan, draw, measure, and leave judgement.json in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Faults, Refused
from registry.formats.atomic_file import write_json
from registry.printable import as_lines, counted
from registry.progress import Report, silent
from train.judging.draw import Drawing, check_drawable, drawn, plan_drawing
from train.judging.faces.likeness import FaceLikeness, SetFaces, face_likeness, set_faces
from train.judging.faces.reader import FaceReader, face_faults, open_faces
from train.judging.likeness import Drawn
from train.judging.models import DrawnImages, GivenModels, JudgingModels, find_models, measured
from train.judging.rows import ImageTable
from train.judging.table import Images, table_of
from train.plan.base import resolve_device
from train.plan.checks import Attempts
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
    models: JudgingModels = JudgingModels()
    faces: SetFaces | None = None

    def to_json(self) -> dict[str, Any]:
        """The plan, plain values with stable keys."""
        grids = {"heldout": self.own.planned.to_json(), "generic": None if self.generic is None else self.generic.planned.to_json()}
        plain = {"run": str(self.run.folder), "checkpoints": list(self.run.checkpoints), "grids": grids, "notes": list(self.notes)}
        faces = None if self.faces is None else self.faces.to_json()
        return plain | {"models": {**self.models.to_json(), "faces": faces}}

    def to_text(self) -> str:
        """The plan for a person."""
        both = [self.own.planned, *([self.generic.planned] if self.generic else [])]
        images = sum(grid.distinct for grid in both)
        left = images - sum(grid.stored for grid in both)
        other = f" and {len(self.generic.prompts)} generic ones" if self.generic else ""
        what = (
            f"{counted(len(self.run.checkpoints), 'checkpoint')} and the base: {counted(len(self.own.prompts), 'held-out prompt')}{other}, "
            f"{counted(self.own.seeds, 'seed')}"
        )
        lines = [
            f"{what}: {counted(images, 'image')}, {left} to draw",
            *self.models.lines(),
            *(self.faces.lines() if self.faces else []),
            *(f"note: {note}" for note in self.notes),
        ]
        return as_lines(lines)


def plan_judging(
    folder: Path,
    store: Store,
    *,
    prompts: int = PROMPTS,
    seeds: int = SEEDS,
    generic: Sequence[str] = GENERIC,
    models: GivenModels | None = None,
    report: Report = silent,
) -> Judging:
    """Everything checked, no images drawn; given models are opened and tried. Raises Refused, or Faults with everything that is wrong."""
    attempts = Attempts()
    run = attempts(lambda: _drawable(folder))
    images = attempts(lambda: _images_of(run, report)) if run else None
    chosen = evenly([image.prompt for image in images.heldout], prompts) if images else []
    own = attempts(lambda: plan_drawing(run, chosen, "heldout", store, seeds=seeds)) if run and chosen else None
    other = attempts(lambda: plan_drawing(run, list(generic), "generic", store, seeds=seeds)) if run and own and generic else None
    found = find_models(models or GivenModels(), run.config.device if run else "cpu", [*chosen, *generic], attempts)
    faces = _faces(models or GivenModels(), run, images, attempts, report)
    if found.clip and len(chosen) == 1:
        attempts.faults.append("--clip: the held-out images have one prompt, and two are needed to compare an image's own with another.")
    if len(attempts.faults) == 1:
        raise Refused(attempts.faults[0])
    if attempts.faults or run is None or images is None or own is None:
        raise Faults("This run cannot be judged as it is:", attempts.faults)
    notes = (*images.notes, *_few(chosen, seeds), *found.notes, *(faces.notes() if faces else []))
    return Judging(run=run, own=own, generic=other, heldout=images.heldout, trained=images.trained, notes=notes, models=found, faces=faces)


def _faces(given: GivenModels, run: RunFiles | None, images: _SetImages | None, attempts: Attempts, report: Report) -> SetFaces | None:
    """The faces of the set where they are asked for; what is wrong is in `attempts`."""
    attempts.faults += (faults := face_faults(given.faces, given.face_detector))
    if given.faces is None or faults or run is None or images is None:
        return None
    every = [*images.heldout, *images.trained]
    return attempts(lambda: set_faces(_open_faces(given, run), every, report=report))


def _open_faces(given: GivenModels, run: RunFiles) -> FaceReader:
    return open_faces(str(given.faces), str(given.face_detector), device=resolve_device(run.config.device))


def _drawable(folder: Path) -> RunFiles:
    run = read_run(folder)
    check_drawable(run)
    return run


@dataclass(frozen=True)
class _SetImages:
    heldout: Sequence[SetImage]
    trained: Sequence[SetImage]
    notes: tuple[str, ...]


def _images_of(run: RunFiles, report: Report) -> _SetImages:
    """The run's images that are still there. Raises Refused for fewer than two held-out ones."""
    heldout, notes = heldout_images(run.config, run.heldout, report=report)
    if len(heldout) < 2:
        raise Refused(
            f"{run.folder}: {counted(len(heldout), 'held-out image is', 'held-out images are')} there, and two "
            "are needed to compare with. Train with heldout.path=FOLDER "
            f"or heldout.share=0.1. {' '.join(notes)}"
        )
    trained, more = training_images(run.config, run.trained, report=report)
    return _SetImages(heldout, trained, (*notes, *more))


def evenly(every: Sequence[str], count: int) -> list[str]:
    """So many different prompts, evenly over the held-out images."""
    texts = list(dict.fromkeys(every))
    return texts if len(texts) <= count else [texts[place * len(texts) // count] for place in range(count)]


def _few(prompts: Sequence[str], seeds: int) -> list[str]:
    from infer.score.intervals import SMALLEST

    notes = (
        []
        if len(prompts) >= SMALLEST
        else [f"{counted(len(prompts), 'prompt is', 'prompts are')} too few for intervals: these images cannot tell"]
    )
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
    prompts, others = planned.own.prompts, planned.generic.prompts if planned.generic else ()
    images = DrawnImages(own=own, prompts=prompts, generic=generic, generic_prompts=others)
    likeness, following = measured(planned.models, images, planned.heldout, planned.trained, report=report)
    found = replace(found, likenesses=likeness, prompts=following, faces=_face_likeness(planned, own, report))
    value = {
        **found.to_json(),
        "prompts": list(prompts),
        "generic_prompts": list(others),
        "seeds": planned.own.seeds,
        "grids": [str(path) for path in (place, other) if path is not None],
        "notes": list(planned.notes),
    }
    write_json(planned.run.folder / JUDGEMENT, value)
    return found, value


def _face_likeness(planned: Judging, own: Mapping[int, Drawn], report: Report) -> FaceLikeness | None:
    """The faces of the drawn images. Raises Refused where a model's file has changed since the plan."""
    if planned.faces is None:
        return None
    reader = _open_faces(planned.models.given, planned.run)
    if reader.definitions != (planned.faces.model, planned.faces.detector):
        raise Refused(
            f"{reader.definition.path} or {reader.detector.definition.path} has changed since the plan was made. Judge the run again."
        )
    return face_likeness(reader, planned.faces, own, report=report)


def _losses(run: RunFiles) -> Mapping[int, float]:
    """Mean held-out loss by step, 0: the base's."""
    if run.history is None or not run.history.base:
        return {}
    rows = [(0, run.history.base), *((int(row["step"]), row["losses"]) for row in run.history.heldout)]
    return {step: fsum(losses) / len(losses) for step, losses in rows}
