"""`--multirun`: the runs are planned first, then Hydra's sweeper and launcher run them; result.json lists the runs and the best.

Each run writes a line of its own into the sweep's folder when it ends, so that runs on other machines are counted too, and a
sweep that was stopped still lists what it did.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.hydra.bridge import call_hydra, compose_hydra, parse, prepare, understandable
from loraloom.hydra.composer import Composer
from loraloom.hydra.job import Job, Request
from loraloom.hydra.literal import quote
from loraloom.hydra.plugins import BASIC, PACKAGES, target_fault
from loraloom.hydra.points import corner_points, run_label, sweep_points, swept_keys
from registry.errors import Faults, JobFailed, Refused
from registry.files.made_folders import note_made
from registry.formats.atomic_file import write_json
from registry.home import expanded
from registry.printable import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was accepted."""

    job: Job[Any]
    composer: Composer
    overrides: tuple[str, ...]  # of the sweeper's own params, then of the command line
    search: bool  # the sweeper chooses the values itself, by what the runs before gave
    direction: str  # minimize or maximize

    @property
    def points(self) -> list[list[str]]:
        """The runs; of a search the ends of what it may try."""
        return (corner_points if self.search else sweep_points)(self.overrides, self.composer.presets.groups)

    def labelled(self, request: Request[Any], point: Sequence[str]) -> Request[Any]:
        """The request with what its run has of its own in the run's name, where the job has such names."""
        label = run_label(point, swept_keys(self.overrides))
        if self.job.labelled is None or not label:
            return request
        return replace(request, config=self.job.labelled(request.config, label))


def run_sweep(job: Job[Any], composer: Composer) -> int:
    """Plan the runs, then run them; the last line on stdout is the sweep's folder. One failed run does not stop the others."""
    sweep = _accepted(job, composer)
    requests = _requests(sweep)
    plans = _plans(sweep, requests)
    if any(getattr(request.config, "dry_run", False) for request in requests):
        if composer.arguments.json:
            console.answer_json([plan.to_json() for plan in plans])
        else:
            console.answer_lines(plans_text(plans))
        return 0
    return _launch(sweep, _new_folder(job.name, requests))


def sweep_plans(job: Job[Any], composer: Composer) -> list[Any]:
    """The plan of every run of a sweep; nothing is made. Raises Faults with what is wrong with any of them."""
    sweep = _accepted(job, composer)
    return _plans(sweep, _requests(sweep))


def plans_text(plans: Sequence[Any]) -> str:
    """The plans of a sweep's runs under each other."""
    return "\n\n".join(f"run {n} of {len(plans)}\n{plan.to_text()}" for n, plan in enumerate(plans, 1))


def check_sweep(job: Job[Any], composer: Composer) -> None:
    """Raise Faults with what is wrong with the settings of a sweep and of its runs, before there are plans."""
    _requests(_accepted(job, composer))


def _accepted(job: Job[Any], composer: Composer) -> Sweep:
    """The sweep with its sweeper and launcher. Raises Faults for plug-ins that are missing, and for values that a sweeper cannot take."""
    composer.check()
    first = corner_points(composer.overrides, composer.presets.groups)[0]
    with understandable():
        hydra = compose_hydra(job.name, job.schema, first)
    faults = []
    for group in PACKAGES:
        part = group.partition("/")[2]
        choice, target = str(hydra.runtime.choices.get(group)), str(hydra[part]["_target_"])
        if fault := target_fault(group, choice, target, composer.presets.folders):
            faults.append(fault)
    params = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
    faults += [fault for raw in params if (fault := composer.checker.fault(raw, raw))]
    search = str(hydra.sweeper["_target_"]) != BASIC
    if not search:
        faults += [_needs_search(raw) for raw in (*params, *composer.overrides) if _is_interval(raw)]
    if faults:
        raise Faults(f"loraloom {job.name} was not started:", faults)
    direction = str(hydra.sweeper.get("direction") or "minimize")
    return Sweep(job, composer, (*params, *composer.overrides), search, direction)


def _is_interval(override: str) -> bool:
    return parse(override).is_interval_sweep()


def _needs_search(raw: str) -> str:
    key = raw.partition("=")[0]
    return (
        f"{raw}: an interval needs a sweeper that chooses values from it. Add hydra/sweeper=optuna"
        f" (pip install {PACKAGES['hydra/sweeper']['optuna']}), or list the values: {key}=A,B,C."
    )


def _requests(sweep: Sweep) -> list[Request[Any]]:
    """The checked config of every single run; the faults of all of them together."""
    requests, faults = [], []
    for point in sweep.points:
        try:
            requests.append(sweep.labelled(sweep.composer.request_of(point), point))
        except Refused as error:
            faults.append(f"{' '.join(point)}: {indented(error)}")
    if faults:
        raise Faults(f"{len(faults)} of the sweep's runs are refused; none was started:", faults)
    return requests


def _plans(sweep: Sweep, requests: Sequence[Request[Any]]) -> list[Any]:
    """The plan of every single run: what can be known before the costly part, reported before the first of them."""
    plans: list[Any] = []
    faults: dict[str, int] = {}

    def count(text: str) -> None:
        faults[text] = faults.get(text, 0) + 1

    for request in requests:
        try:
            plans.append(sweep.job.plan(request))
        except Refused as error:
            count(indented(error))
            continue
        if sweep.search and (why := sweep.job.unmeasured(plans[-1])):
            count(f"loraloom {sweep.job.name} cannot be searched: {why}.")
    if faults:
        raise Faults(
            "These runs of the sweep are refused; none was started:",
            [f"{count} of {len(requests)}: {text}" for text, count in faults.items()],
        )
    return plans


def indented(error: Exception) -> str:
    """An error of several lines as one item of a list."""
    return str(error).replace("\n", "\n    ")


def _new_folder(name: str, requests: Sequence[Request[Any]]) -> Path:
    """A folder of this sweep alone: <out>/sweeps/<job>-<stamp>."""
    out = expanded(getattr(requests[0].config, "out", None) or "runs").absolute()
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        folder = out / "sweeps" / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        (folder / "runs").mkdir()
        note_made(folder)
        return folder
    raise JobFailed(f"{out / 'sweeps'} holds a thousand sweeps of this second.")


def _launch(sweep: Sweep, folder: Path) -> int:
    began = time.monotonic()
    words = ["--multirun", *_typed(sweep), f"hydra.sweep.dir={quote(str(folder))}"]
    try:
        call_hydra(sweep.job.name, sweep.job.schema, words, _task(sweep, folder))
    except (ImportError, Refused) as error:
        if not _finished(folder):
            shutil.rmtree(folder)  # nothing was begun
        if isinstance(error, Refused):
            raise
        raise Refused(f"The launcher or sweeper cannot be loaded: {error}. Install what is missing: pip install {error.name}.") from error
    finally:
        if folder.is_dir():
            runs = _finished(folder)
            best, summary = _best(runs, sweep.direction), list(sweep.job.summary(runs))
            result = {"job": sweep.job.name, "runs": runs, "best": best, "summary": summary}
            write_json(folder / "result.json", {**result, "seconds": round(time.monotonic() - began, 3)})
    console.answer(str(folder))
    for line in summary:
        console.say(line)
    return _reported(folder, runs, best)


def _reported(folder: Path, runs: Sequence[dict[str, Any]], best: Any) -> int:
    """What became of the runs, in a line or two; gives the exit code."""
    codes = {run["exit_code"] for run in runs} - {0}
    failed = [run for run in runs if run["exit_code"]]
    if best is not None:
        console.say(f"best: run {best['number']}, {best['value']:.6g}, {' '.join(best['overrides'])}")
    if failed:
        numbers = ", ".join(str(run["number"]) for run in failed)
        console.say(f"error: {len(failed)} of {counted(len(runs), 'run')} did not finish: {numbers}. {folder}/result.json has the reasons.")
    return 0 if not codes else 2 if codes == {2} else 1


def _best(runs: Sequence[dict[str, Any]], direction: str) -> dict[str, Any] | None:
    """The run with the best value, None where no run has one."""
    measured = [run for run in runs if run["value"] is not None]
    if not measured:
        return None
    best = (max if direction == "maximize" else min)(measured, key=lambda run: float(run["value"]))
    return {key: best[key] for key in ("number", "overrides", "value", "reference", "folder")}


def _typed(sweep: Sweep) -> list[str]:
    """The overrides as Hydra gets them: the interval of a whole number is marked, since Hydra reads its ends as floats."""
    settings = sweep.composer.schema.settings
    words = []
    for raw in sweep.overrides:
        key, _, value = raw.partition("=")
        is_whole = key in settings and settings[key].kinds == (int,)
        words.append(f"{key}=int({value})" if is_whole and _is_interval(raw) else raw)
    return words


def _task(sweep: Sweep, folder: Path) -> Callable[["DictConfig"], float | None]:
    """What Hydra calls for each run; a launcher may carry it into another process."""
    debug = console.is_debug()

    def task(raw: "DictConfig") -> float | None:
        console.listen_once(debug=debug)
        return _run_one(sweep, folder, raw)

    return task


def _run_one(sweep: Sweep, folder: Path, raw: "DictConfig") -> float | None:
    """One run of the sweep, wherever the launcher put it; its end goes into the sweep's folder, its value to the sweeper."""
    from hydra.core.hydra_config import HydraConfig

    prepare(sweep.job.name, sweep.job.schema)  # in another process nobody has
    hydra = HydraConfig.get()
    console.set_verbose(hydra.verbose)
    number, overrides = int(hydra.job.num), [str(one) for one in hydra.overrides.task]
    entry: dict[str, Any] = {"number": number, "overrides": overrides, "settings": {}, "folder": None, "reference": None}
    entry |= {"value": None, "exit_code": 0, "error": None}
    console.say(f"run {number}: {' '.join(overrides)}")
    try:
        request = sweep.labelled(sweep.composer.request_from(raw, overrides), overrides)
        entry["settings"] = {name: getattr(value, "name", value) for name, value in request.given.items()}  # an Enum by its name
        finished = sweep.job.run(request)
        entry |= {"folder": str(finished.folder.absolute()), "reference": finished.reference, "value": finished.value}
        entry["exit_code"] = finished.exit_code
        console.say(f"run {number}: {entry['folder']}")
    except Exception as error:  # the other runs go on; result.json and the exit code report this one
        entry["exit_code"] = console.fail(error)
        entry["error"] = str(error)
    write_json(folder / "runs" / f"{number:04d}.json", entry)
    if entry["exit_code"] == console.INTERRUPTED:
        raise KeyboardInterrupt
    return entry["value"] if entry["value"] is not None or not sweep.search else float("nan")


def _finished(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "runs").glob("*.json"))]
