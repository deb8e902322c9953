"""`--multirun`: every combination is planned first, then Hydra's sweeper and launcher run them; result.json lists the runs.

Each run writes its own line of the sweep's folder when it ends, so that runs on other machines are counted too, and so that a
sweep that was stopped still tells what it did.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.hydra.bridge import call_hydra, sweep_points
from loraloom.hydra.literal import quote
from registry.errors import Faults, JobFailed, Refused
from registry.formats.atomic_file import write_json

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from loraloom.hydra.composer import Composer
    from loraloom.hydra.job import Job, Request


def run_sweep(job: "Job[Any]", composer: "Composer") -> int:
    """Plan every run, then run them; the last line on stdout is the sweep's folder. One failed run does not stop the others."""
    composer.check()
    requests = _requests(composer)
    plans = _plans(job, requests)
    if any(getattr(request.config, "dry_run", False) for request in requests):
        if composer.arguments.json:
            console.answer_json([plan.to_json() for plan in plans])
        else:
            console.answer("\n\n".join(f"run {n} of {len(plans)}\n{plan.to_text()}" for n, plan in enumerate(plans, 1)))
        return 0
    return _launch(job, composer, _new_folder(job.name, requests))


def _requests(composer: "Composer") -> list["Request[Any]"]:
    """The checked config of every single run; the faults of all of them together."""
    requests, faults = [], []
    for point in sweep_points(composer.overrides):
        try:
            requests.append(composer.request_of(point))
        except Refused as error:
            faults.append(f"{' '.join(point)}: {indented(error)}")
    if faults:
        raise Faults(f"{len(faults)} of the sweep's runs are refused; none was started:", faults)
    return requests


def _plans(job: "Job[Any]", requests: Sequence["Request[Any]"]) -> list[Any]:
    """The plan of every single run: what can be known before the costly part, told before the first of them."""
    plans: list[Any] = []
    faults: dict[str, int] = {}
    for request in requests:
        try:
            plans.append(job.plan(request))
        except Refused as error:
            faults[indented(error)] = faults.get(indented(error), 0) + 1
    if faults:
        raise Faults(
            "These runs of the sweep are refused; none was started:",
            [f"{count} of {len(requests)}: {text}" for text, count in faults.items()],
        )
    return plans


def indented(error: Exception) -> str:
    """An error of several lines as one item of a list."""
    return str(error).replace("\n", "\n    ")


def _new_folder(name: str, requests: Sequence["Request[Any]"]) -> Path:
    """A folder of this sweep alone: <out>/sweeps/<job>-<stamp>."""
    out = Path(getattr(requests[0].config, "out", None) or "runs").expanduser().absolute()
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        folder = out / "sweeps" / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        (folder / "runs").mkdir()
        return folder
    raise JobFailed(f"{out / 'sweeps'} holds a thousand sweeps of this second.")


def _launch(job: "Job[Any]", composer: "Composer", folder: Path) -> int:
    began = time.monotonic()
    words = ["--multirun", *composer.overrides, f"hydra.sweep.dir={quote(str(folder))}"]
    try:
        call_hydra(job.name, job.schema, words, lambda raw: _run_one(job, composer, folder, raw))
    finally:
        runs = _finished(folder)
        write_json(folder / "result.json", {"job": job.name, "runs": runs, "seconds": round(time.monotonic() - began, 3)})
    console.answer(str(folder))
    codes = {run["exit_code"] for run in runs} - {0}
    failed = [run for run in runs if run["exit_code"]]
    if failed:
        numbers = ", ".join(str(run["number"]) for run in failed)
        console.say(f"error: {len(failed)} of {len(runs)} runs did not finish: {numbers}. {folder}/result.json says why.")
    return 0 if not codes else 2 if codes == {2} else 1


def _run_one(job: "Job[Any]", composer: "Composer", folder: Path, raw: "DictConfig") -> None:
    """One run of the sweep, wherever the launcher put it; what became of it goes into the sweep's folder."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    number, overrides = int(hydra.job.num), [str(one) for one in hydra.overrides.task]
    entry: dict[str, Any] = {"number": number, "overrides": overrides, "settings": {}, "folder": None, "exit_code": 0, "error": None}
    console.say(f"run {number}: {' '.join(overrides)}")
    try:
        request = composer.request_from(raw, overrides)
        entry["settings"] = {name: getattr(value, "name", value) for name, value in request.given.items()}  # an Enum by its name
        finished = job.run(request)
        entry |= {"folder": str(finished.folder.absolute()), "exit_code": finished.exit_code}
        console.say(f"run {number}: {entry['folder']}")
    except Exception as error:  # the other runs go on; result.json and the exit code tell of this one
        entry["exit_code"] = console.fail(error)
        entry["error"] = str(error)
    write_json(folder / "runs" / f"{number:04d}.json", entry)
    if entry["exit_code"] == console.INTERRUPTED:
        raise KeyboardInterrupt


def _finished(folder: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "runs").glob("*.json"))]
