"""All that a run's page shows beside its curves: facts, previews, plan, settings, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.studio.runs.folders import RunState, run_folder, state_of
from loraloom.studio.runs.listing import job_of, start_waiting
from loraloom.studio.runs.registered import RegisteredRun, index_trouble, registered_runs
from loraloom.studio.runs.summary import Signature, signature, summary_of
from registry.errors import BadFile, LoomError, NotFound, Refused
from registry.files.progress_file import NAME as PROGRESS
from registry.files.progress_file import read_progress
from train.config import from_plain
from train.loop import checkpoint
from train.loop.trackers import METRICS
from train.measures.images import FILE as IMAGES
from train.output.folder import CONFIG, PLAN, RESULT, read_config, read_json_if_there
from train.run_report.read import preview_files
from train.run_report.settings import changed_settings, command_of, rows_of

if TYPE_CHECKING:
    from loraloom.studio.context import Studio
    from registry.record import Record
    from train.config import TrainConfig

REPORT = "report.html"
READ = (METRICS, PLAN, RESULT, PROGRESS, IMAGES)  # files of a run that are read whole: a named pipe would be waited for


def own_run(studio: Studio, given: str) -> Path:
    """The run folder of a request. Raises NotFound, and Refused for what is no run folder or lies outside of what may be shown."""
    path = studio.places.readable(given)
    if not (path / CONFIG).is_file():
        raise Refused(f"{given}: this is not a run folder, it has no {CONFIG}.")
    for file in (path / name for name in READ):
        if file.exists() and not file.is_file():
            raise BadFile(file, "unreadable", "is no regular file. Copy it from the run again, or remove it.")
    return path


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What a run's page watches: how far it is, and what has changed of its files."""

    state: str
    progress: Mapping[str, Any] | None
    metrics: Signature
    samples: Signature
    checkpoints: Signature
    result: Signature
    report: Signature
    job: Mapping[str, Any] | None


def glance(studio: Studio, folder: Path) -> Glance:
    """The state of a run now."""
    progress = read_progress(folder / PROGRESS)
    job = job_of(studio, folder)
    start_waiting(studio, [job] if job else [])
    return Glance(
        state=state_of(folder).value,
        progress=None if progress is None else progress.to_json(),
        metrics=signature(folder / METRICS),
        samples=signature(folder / "samples"),
        checkpoints=signature(folder / "checkpoints"),
        result=signature(folder / RESULT),
        report=signature(folder / REPORT),
        job=None if job is None else job.to_json(),
    )


def details(studio: Studio, folder: Path) -> dict[str, Any]:
    """A run as its page shows it."""
    run, config = run_folder(folder), read_config(folder)
    plan = read_json_if_there(folder / PLAN) or {}
    result = read_json_if_there(folder / RESULT) or {}
    sentences = result.get("sentences")
    verdict = result.get("verdict")
    return {
        "path": str(folder),
        "name": run.name,
        "stamp": run.stamp,
        "summary": vars(summary_of(folder)),
        "sentences": [str(one) for one in sentences] if isinstance(sentences, list) else [],
        "verdict": verdict if isinstance(verdict, dict) else None,
        "stopped_early": result.get("stopped_early"),
        "adapter": _adapter(studio, result),
        "data": config.data.path,
        "settings": list(rows_of(changed_settings(config))),
        "command": command_of(config),
        "plan": str(plan.get("text", "")),
        "files": files_of(folder),
        "previews": previews(folder, config),
        "checkpoints": list(checkpoint.steps_of(folder)),
        "glance": vars(glance(studio, folder)),
    }


def _adapter(studio: Studio, result: Mapping[str, Any]) -> dict[str, str] | None:
    """The id of the adapter that a run has registered, and its name among adapters; None where there is none, or no index."""
    files = result.get("files")
    path = files.get("diffusers") if isinstance(files, dict) else None
    if not isinstance(path, str):
        return None
    try:
        record = studio.store.find(path, kind="adapter", fresh=False)
    except LoomError:
        return None
    return {"id": record.id, "reference": record.name} if record.id else None  # without an id: it is not registered, or not any more


def is_elsewhere(studio: Studio, given: str) -> bool:
    """Whether this is the path of a run of the index whose folder is not here. Raises NotFound where the index cannot be read."""
    if Path(given).is_dir():
        return False
    if any(str(one.path) == given for one in registered_runs(studio)):
        return True
    if (trouble := index_trouble(studio)) is not None:  # it may have this run
        raise NotFound(f"{given}: there is no such run folder. {trouble}")
    return False


def _found_elsewhere(studio: Studio, given: str) -> tuple[RegisteredRun, Record]:
    found = next((one for one in registered_runs(studio) if str(one.path) == given), None)
    if found is None:
        raise NotFound(f"{given}: there is no such run folder, and the index has none of that path.")
    return found, studio.store.find(found.reference, kind="run", fresh=False)


def config_elsewhere(studio: Studio, given: str) -> TrainConfig:
    """The settings of a run whose folder is not here, as the index has them. Raises NotFound, Faults."""
    _, record = _found_elsewhere(studio, given)
    return from_plain(dict(record.recipe or {}))


def elsewhere(studio: Studio, given: str) -> dict[str, Any]:
    """A run of the index whose folder is not here. Raises NotFound."""
    found, record = _found_elsewhere(studio, given)
    recipe = {str(name): value for name, value in (record.recipe or {}).items()}
    return {
        "id": record.id,
        "path": given,
        "name": found.reference,
        "stamp": found.stamp,
        "state": RunState.elsewhere.value,
        "summary": vars(found.summary),
        "parents": [dict(parent) for parent in record.parents],
        "created": record.created,
        "settings": [(name, text) for name, text in rows_of(_flat(recipe)) if text != "null"],
    }


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def previews(folder: Path, config: TrainConfig) -> dict[str, Any]:
    """The previews by prompt and step: {"steps", "prompts": [{"prompt", "images": {step: {"path", "v"}}}]}."""
    files = preview_files(folder)
    prompts = config.preview.prompts or []
    rows = []
    for number in sorted({number for _, number in files}):
        images = {
            str(step): {"path": str(file), "v": "-".join(map(str, signature(file)))}
            for (step, other), file in files.items()
            if other == number
        }
        rows.append({"prompt": prompts[number - 1] if number <= len(prompts) else f"prompt {number}", "images": images})
    return {"steps": sorted({step for step, _ in files}), "prompts": rows}


def files_of(folder: Path) -> list[dict[str, Any]]:
    """The files of a run folder with their bytes; of a folder inside it, how many files and their bytes together."""
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        inside = [one for one in entry.rglob("*") if one.is_file()] if entry.is_dir() else [entry]
        size = sum(max(0, signature(one)[0]) for one in inside)
        found.append({"name": entry.name, "bytes": size, "files": len(inside) if entry.is_dir() else None})
    return found
