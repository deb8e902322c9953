"""A run folder as its report reads it: what is there, checked, and what is missing in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import BadFile, JobFailed, NotFound, Refused
from registry.plain_values import from_json
from registry.typed_values import is_of
from train.config import TrainConfig
from train.loop import checkpoint
from train.loop.history import LISTS, History, history_of
from train.loop.preview import sample_name
from train.loop.trackers import METRICS, read_metrics
from train.output import folder as run_folder
from train.output.inputs import is_sound
from train.run_report.judgement_rows import is_judgement

SAMPLE = re.compile(r"step-(\d{6,})-(\d{2,})\.png")
LARGEST = 1e300  # no NaN, no infinity, and no whole number that no float holds
IMAGES = "images.jsonl"  # the loss of each training image at each measurement
JUDGEMENT = "judgement.json"  # what loraloom judge found
ROOM = 64 << 20  # bytes of one JSON file of a run; those of 100,000 images have 20 MB


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds. None and empty: it is not there, and `missing` has the reason."""

    folder: Path
    config: TrainConfig
    inputs: Mapping[str, Any]
    metrics: list[dict[str, Any]]
    history: History | None
    result: Mapping[str, Any] | None
    plan: Mapping[str, Any] | None
    previews: Mapping[tuple[int, int], Path]  # (step, prompt number) -> image; step 0 is the base's
    checkpoints: Mapping[int, Path]  # step -> folder
    images: tuple[Mapping[str, Any], ...] = ()  # {"step", "image", "loss", "other"} of training images
    judgement: Mapping[str, Any] | None = None  # of the checkpoints by their images
    missing: tuple[str, ...] = field(default=())

    @property
    def last_step(self) -> int:
        """The last step that was logged, or kept."""
        return max([0, *(int(row["step"]) for row in self.metrics), *self.checkpoints])

    @property
    def trained(self) -> list[Mapping[str, Any]]:
        """{"file", "sha256", "prompt"} of each training image."""
        return list(self.inputs["dataset"]["files"])

    @property
    def heldout(self) -> list[Mapping[str, Any]]:
        """The same of each held-out image."""
        return list(self.inputs["heldout"])

    @property
    def adapter(self) -> Path | None:
        """The adapter to look into: the finished run's, else that of the newest checkpoint; none of a run that trains tokens alone."""
        if self.config.lora.kind == "none":
            return None
        files = (self.result or {}).get("files")
        written = [Path(str(path)) for path in files.values()] if isinstance(files, dict) else []
        moved = [self.folder / path.name for path in written]  # of a run folder that was copied or renamed
        newest = [place / checkpoint.ADAPTER for place in reversed(list(self.checkpoints.values()))]
        return next((path for path in [*moved, *written, *newest] if path.is_file()), None)


def read_run(folder: Path, *, result: Mapping[str, Any] | None = None) -> RunFiles:
    """What a run folder holds; `result` is that of a run that has not written it yet.

    Raises NotFound, and Refused for another folder or for files that are damaged.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        why = "is a file" if folder.is_file() else "there is no such folder"
        raise NotFound(f"{folder}: {why}. Give a run folder of loraloom train: runs/<name>/<stamp>.")
    lacking = [name for name in (run_folder.CONFIG, run_folder.INPUTS) if not (folder / name).is_file()]
    if lacking:
        raise Refused(
            f"{folder} is not a run folder of loraloom train: it has no {' and no '.join(lacking)}. Give one of runs/<name>/<stamp>."
        )
    config = run_folder.read_config(folder)
    missing: list[str] = []
    inputs = _object(folder / run_folder.INPUTS, missing, "")
    if inputs is None or not is_sound(inputs):
        raise BadFile(folder / run_folder.INPUTS, "damaged", "it does not hold a run's inputs. Was it edited? Copy it from the run again.")
    if result is None:
        result = _object(folder / run_folder.RESULT, missing, "the result: the run is not finished, or was stopped")
    plan = _object(folder / run_folder.PLAN, missing, "the plan, and with it buckets and notes: the run is from before plans were kept")
    previews = preview_files(folder)
    if not previews:
        missing.append("images by step: the run drew no previews (preview.prompts, preview.every)")
    checkpoints = checkpoint.steps_of(folder)
    metrics = _metrics(folder)
    if not metrics:
        missing.append(f"curves: there is no {METRICS}, or no step in it")
    history = read_history(checkpoints, missing)
    judgement = _object(folder / JUDGEMENT, [], "")
    if judgement is not None and not is_judgement(judgement):
        raise BadFile(folder / JUDGEMENT, "damaged", "it is not what loraloom judge writes. Remove it, and judge the run again.")
    return RunFiles(
        folder=folder,
        config=config,
        inputs=inputs,
        metrics=metrics,
        history=history,
        result=result,
        plan=plan,
        previews=previews,
        checkpoints=checkpoints,
        images=_image_rows(folder / IMAGES),
        judgement=judgement,
        missing=tuple(missing),
    )


def preview_files(folder: Path) -> Mapping[tuple[int, int], Path]:
    """(step, prompt number) -> image, in order."""
    place = folder / "samples"
    entries = place.iterdir() if place.is_dir() else ()
    found = {(int(match[1]), int(match[2])): file for file in entries if (match := SAMPLE.fullmatch(file.name))}
    return {key: file for key, file in sorted(found.items()) if file.name == sample_name(*key)}


def _object(path: Path, missing: list[str], what: str) -> Mapping[str, Any] | None:
    """The JSON object of a file; None, and a line in `missing`, where there is none. Raises BadFile for another content."""
    try:
        if path.stat().st_size > ROOM:
            raise BadFile(path, "too-large", f"it has more than {ROOM >> 20} MiB. It is no file of a run.")
        value = from_json(path.read_bytes())
    except FileNotFoundError:
        missing.append(what)
        return None
    except (OSError, ValueError) as error:
        raise BadFile(path, "damaged", f"it cannot be read ({error}). Copy it from the run again, or remove it.") from error
    if not isinstance(value, dict):
        raise BadFile(path, "damaged", "it does not hold a JSON object. Copy it from the run again, or remove it.")
    return value


def _metrics(folder: Path) -> list[dict[str, Any]]:
    try:
        return [finite_row(row) for row in read_metrics(folder)]
    except JobFailed as error:
        raise BadFile(folder / METRICS, "damaged", str(error)) from error
    except OSError as error:
        raise BadFile(folder / METRICS, "unreadable", f"it cannot be read ({error.strerror or error}).") from error


def finite_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row of metrics.jsonl a curve can show."""
    return {name: value for name, value in row.items() if name == "step" or _finite([value])}


def _image_rows(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The rows of images.jsonl; none of a run from before it was kept. Raises BadFile."""
    try:
        lines = path.read_bytes().splitlines() if path.stat().st_size <= ROOM else []
        rows = [from_json(line) for line in lines]
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise BadFile(path, "damaged", f"it cannot be read ({error}). Copy it from the run again, or remove it.") from error
    types = {"step": int, "image": str, "loss": float}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(is_of(row.get(name), kind) for name, kind in types.items()) or not _finite([row["loss"]]):
            raise BadFile(path, "damaged", f"line {number} is no loss of an image. Copy it from the run again, or remove it.")
    return tuple(rows)


def read_history(checkpoints: Mapping[int, Path], missing: list[str]) -> History | None:
    """The measurements of the newest checkpoint, which has those of all steps before."""
    if not checkpoints:
        missing.append("the loss of each image, the spectrum: there is no checkpoint")
        return None
    step, place = list(checkpoints.items())[-1]
    state = _object(place / checkpoint.STATE, missing, f"the loss of each image: {place.name} has no {checkpoint.STATE}")
    if state is None:
        return None
    if not is_of(state.get("history"), dict[str, Any]):
        raise BadFile(place / checkpoint.STATE, "damaged", "it has no history. Remove this checkpoint, or copy it again.")
    try:
        history = history_of(checkpoint.Checkpoint(place, step, {}, state["history"]))
    except JobFailed as error:
        raise BadFile(place / checkpoint.STATE, "damaged", str(error)) from error
    if not all(_fits(row, history) for row in [history.before, *history.heldout] if row):
        raise BadFile(place / checkpoint.STATE, "damaged", "its measurements are of different images. Was it edited? Copy it again.")
    return history


def _fits(row: Mapping[str, Any], history: History) -> bool:
    """Whether a measurement has as many images as the base's, and all that belongs to it."""
    own, others, bands = row.get("own", []), row.get("others", []), row.get("bands", [0.0] * 3)
    same = len(row["losses"]) == len(history.base) and len(own) == len(others) and len(bands) == 3
    same = same and all(_finite(row.get(name, [])) for name in LISTS)
    return same and len(row.get("trained", [])) == len(history.before.get("trained", row.get("trained", [])))


def _finite(values: Sequence[float]) -> bool:
    """Whether these are numbers that a curve can show."""
    return all(abs(value) < LARGEST for value in values)
