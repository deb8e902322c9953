"""A training run from its settings to its result: plan, folder, work, export, proof, registration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Faults, Refused
from registry.formats.atomic_file import write_json, write_text
from registry.progress import Report, silent
from train.config import TrainConfig, changed, get, to_yaml
from train.loop import checkpoint
from train.output import folder
from train.plan.plan import Plan, make_plan

if TYPE_CHECKING:
    from registry.store import Store

Out = Callable[[str], None]

FIXED = (
    "base",
    "base_config",
    "prediction",
    "data.",
    "resolution",
    "lora.",
    "optim.name",
    "heldout.path",
    "heldout.share",
    "objective.",
    "precision",
)
FINDS = ("resume", "name", "out", "dry_run")  # beside resume=, these say which run is meant and what to do with it


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder (absolute) and the content of its result.json."""

    folder: Path
    result: dict[str, Any]


def quiet(_line: str) -> None:
    """The Out of those who do not read."""


def plan(config: TrainConfig, store: Store, *, given: Mapping[str, Any] | None = None, report: Report = silent) -> Plan:
    """What `run` would do, checked; nothing is made. `given` (dotted name -> value) is what was set explicitly, for resume=."""
    if config.resume is not None:
        place = folder.find_folder(config.resume, out=config.out, name=config.name)
        config = resumed_config(place, _changes(given))
    return make_plan(config, store, report=report)


def run(config: TrainConfig, store: Store, *, given: Mapping[str, Any] | None = None, report: Report = silent, out: Out = quiet) -> Outcome:
    """Train what the settings say; with resume=, go on with that run by its own settings, changed by what was `given`.

    Raises Refused before anything is made, JobFailed or Interrupted afterwards; the run folder then goes on with resume.
    """
    if config.resume is not None:
        place = folder.find_folder(config.resume, out=config.out, name=config.name)
        return resume(place, _changes(given), store, report=report, out=out)
    made = make_plan(replace(config, dry_run=False), store, report=report)
    from train.execute import start

    return start(made, store, report=report, out=out)


def resume(place: Path, changes: Mapping[str, Any], store: Store, *, report: Report = silent, out: Out = quiet) -> Outcome:
    """Go on with a run from its newest sound checkpoint, or from its start where it has none. A finished run tells its result again."""
    place = place.absolute()
    before = folder.read_config(place)
    config = resumed_config(place, changes)
    result = folder.read_json(place / folder.RESULT)
    real = {name: value for name, value in changes.items() if get(before, name) != get(config, name)}
    if result is not None and config.steps <= int(result["steps"]):
        out(f"{place} is finished: {result['steps']} steps. Give steps= above that to train on.")
        return Outcome(place, result)
    made = make_plan(config, store, report=report)
    for name in real:
        out(f"changed: {name} {get(before, name)!r} -> {get(made.config, name)!r}")
        if name == "steps":
            out("  the learning rate's schedule is stretched to the new number of steps")
    _check_inputs(place, made, store)
    newest = checkpoint.newest(place, out)
    if newest is not None and newest.step > made.config.steps:
        raise Refused(
            f"steps={made.config.steps}, but {place.name} has learned {newest.step} steps already. Give more, or start a new run."
        )
    from train.execute import go_on

    return go_on(made, place, newest, store, changes={name: _plain(value) for name, value in real.items()}, report=report, out=out)


def resumed_config(place: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """The run's own settings with the changes. Raises Faults for what a run cannot change."""
    own = folder.read_config(place)
    fixed = [f"{name} ({get(own, name)!r} -> {value!r})" for name, value in changes.items() if _is_fixed(name) and get(own, name) != value]
    if fixed:
        raise Faults("A resumed run keeps its base, its data and its LoRA. Leave these out, or start a new run:", fixed)
    return changed(own, changes)


def _is_fixed(name: str) -> bool:
    return any(name == fixed or (fixed.endswith(".") and name.startswith(fixed)) for fixed in FIXED)


def _changes(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (given or {}).items() if name not in FINDS}


def _plain(value: Any) -> Any:
    return getattr(value, "name", value)


def inputs_of(made: Plan, store: Store) -> dict[str, Any]:
    """Base and data by their hashes, as inputs.json holds them."""

    def rows(samples: Any, prompts: Any) -> list[dict[str, str]]:
        return [{"file": sample.name, "sha256": sample.sha256, "prompt": prompt} for sample, prompt in zip(samples, prompts, strict=True)]

    return {
        "base": {
            "name": made.base.name,
            "family": made.base.family.name,
            "path": str(made.base.path),
            "sha256": store.sha256(made.base.record),
        },
        "dataset": {"path": made.dataset.path, "sha256": made.dataset.sha256, "files": rows(made.train, made.prompts)},
        "heldout": rows(made.heldout, made.heldout_prompts),
        "resumes": [],
    }


def _check_inputs(place: Path, made: Plan, store: Store) -> None:
    """Base and data must be those that the run began with. Raises Faults with what differs."""
    before, now = folder.read_json(place / folder.INPUTS), inputs_of(made, store)
    if before is None:
        raise Refused(f"{place} has no {folder.INPUTS}: it is not a whole run folder.")
    faults = []
    if before["base"]["sha256"] != now["base"]["sha256"]:
        faults.append(
            f"the base {made.base.path} is another one (sha256 {now['base']['sha256'][:12]}, was {before['base']['sha256'][:12]})"
        )
    for part, old, new in (("", before["dataset"]["files"], now["dataset"]["files"]), ("held out: ", before["heldout"], now["heldout"])):
        was, is_now = ({row["file"]: (row["sha256"], row["prompt"]) for row in rows} for rows in (old, new))
        faults += [f"{part}{name} is gone" for name in was.keys() - is_now.keys()]
        faults += [f"{part}{name} is new" for name in is_now.keys() - was.keys()]
        faults += [f"{part}{name} has another picture or caption" for name in was.keys() & is_now.keys() if was[name] != is_now[name]]
    if faults:
        raise Faults(f"{place} was begun with other inputs. Put them back, or start a new run:", sorted(faults))


def record_resume(place: Path, made: Plan, *, step: int, changes: Mapping[str, Any]) -> None:
    """Note the resume in inputs.json, and the settings that now hold in config.yaml."""
    inputs = folder.read_json(place / folder.INPUTS)
    assert inputs is not None
    inputs["resumes"].append({"step": step, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "changes": dict(changes)})
    write_json(place / folder.INPUTS, inputs)
    if changes:
        write_text(place / folder.CONFIG, to_yaml(replace(made.config, dry_run=False, resume=None)))
