"""A training run from its settings to its result: plan, start, resume."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Faults, Refused
from registry.printable import counted
from registry.progress import Report, silent
from train.config import TrainConfig, changed, dotted_names, get
from train.execute import resume_from, start
from train.loop import checkpoint
from train.loop.history import history_of
from train.measures.early_stop import early_stop
from train.output import folder
from train.output.inputs import HASHED, check_inputs
from train.plan.make import make_plan
from train.plan.plan import Plan
from train.plan.savings import SEARCHED, Search
from train.prior.drawn import draw, keeping
from train.rate import learning_rate
from train.run_types import Log, Outcome, discard

if TYPE_CHECKING:
    from registry.store import Store

FIXED = (
    "base",
    "base_config",
    "prediction",
    "data.",
    "resolution",
    "clip_skip",
    "prompt_chunks",
    "lora.",
    "adapter.",
    "tokens.",
    "optim.name",
    "optim.betas",
    "optim.params.",
    "optim.args",
    "optim.loraplus_lr_ratio",
    "heldout.path",
    "heldout.share",
    "heldout.folds",
    "heldout.fold",
    "heldout.generic",
    "objective.",
    "ema.",
    "precision",
    "base_dtype",
    "text_encoder_dtype",
    "compute",
)
CHANGEABLE = ("data.memory", *HASHED)  # of what is fixed
FINDS = ("resume", "name", "out", "dry_run")  # beside resume=, these select the run and what to do with it


def plan(
    config: TrainConfig,
    store: Store,
    *,
    given: Mapping[str, Any] | None = None,
    fixed: Collection[str] | None = None,
    report: Report = silent,
) -> Plan:
    """What `run` would do, checked; nothing is made. `given` (dotted name -> value) is what was set explicitly, for resume=.

    `fixed` are the settings that a search for `memory` leaves alone, by default those that differ from their own defaults.
    """
    if config.resume is not None:
        return _plan_of_resume(folder.find_folder(config.resume, out=config.out, name=config.name), _changes(given), store, report)
    return make_plan(config, store, search=Search(fixed), report=report)


def run(
    config: TrainConfig,
    store: Store,
    *,
    given: Mapping[str, Any] | None = None,
    fixed: Collection[str] | None = None,
    report: Report = silent,
    out: Log = discard,
) -> Outcome:
    """Train by these settings; with resume=, resume that run by its own settings, changed by what was `given`. `fixed` as in `plan`.

    Raises Refused before anything is made, JobFailed or Interrupted afterwards; the run folder can then be resumed.
    """
    if config.resume is not None:
        place = folder.find_folder(config.resume, out=config.out, name=config.name)
        return resume(place, _changes(given), store, report=report, out=out)
    with keeping(config):
        made = _planned(replace(config, dry_run=False), store, Search(fixed), report, out)
        return start(made, store, report=report, out=out)


def _plan_of_resume(place: Path, changes: Mapping[str, Any], store: Store, report: Report) -> Plan:
    """The plan of a resumed run, whose notes say after which step it goes on and what is changed. Raises what `resume` would."""
    before, config, result = folder.read_config(place), resumed_config(place, changes), _result_of(place)
    made = make_plan(config, store, search=_search_again(changes), report=report)
    notes: list[str] = []
    if result is not None and made.config.steps <= result["steps"]:
        _finished(place, result, before, made.config, changes, notes.append)
    elif not (result and result.get("stopped_early") and _stopped_early(place, result, before, config, changes, notes.append)):
        if made.class_images is None or not made.class_images.missing:
            check_inputs(place, made, store)
        step = _step_of(_newest(place, made.config.steps, notes.append))
        real = _changed_names(before, made.config, changes)
        notes += [f"resumes {place} after step {step} of {made.config.steps}", *_changed_lines(before, made.config, real)]
        notes += consequences(before, made.config, real, step=step)
    return replace(made, notes=(*notes, *made.notes))


def _search_again(changes: Mapping[str, Any]) -> Search:
    """What a resume searches: nothing, unless it gives another memory; then what a resumed run may change and keeps its batches."""
    if changes.get("memory") is None:
        return Search(kept=True)
    return Search({*changes, "batch_size", "accumulate", *(name for name in SEARCHED if _is_fixed(name))})


def _planned(config: TrainConfig, store: Store, search: Search, report: Report, out: Log) -> Plan:
    """The plan of a run that begins now: with the class images that the base draws, which it draws where they are missing."""
    made = make_plan(config, store, search=search, report=report)
    if made.class_images is None or not (missing := made.class_images.missing):
        return made
    out(f"drawing {counted(len(missing), 'class image')} by {made.config.data.prior_prompt!r}, into {made.class_images.folder}")
    draw(made.class_images, store, report=report)
    return make_plan(config, store, search=search, report=report)


def train_lora(config: TrainConfig, *, store: Store | None = None, report: Report = silent, out: Log = discard) -> Outcome:
    """`run` for notebooks and scripts, on the home's own Store unless one is given; `out=print` shows the run's lines.

    train_lora(TrainConfig(name="ink", data=DataConfig(path="datasets/ink"), steps=300)).result["files"]["kohya"]
    """
    from registry.store import Store as HomeStore

    return run(config, store if store is not None else HomeStore(), report=report, out=out)


def resume(place: Path, changes: Mapping[str, Any], store: Store, *, report: Report = silent, out: Log = discard) -> Outcome:
    """Resume a run from its newest intact checkpoint, or from step 0. A finished run gives its result again."""
    place = place.absolute()
    before = folder.read_config(place)
    config = resumed_config(place, changes)
    result = _result_of(place)
    if result is not None and config.epochs is None and config.steps <= result["steps"]:
        return _finished(place, result, before, config, changes, out)
    if result is not None and result.get("stopped_early") and (found := _stopped_early(place, result, before, config, changes, out)):
        return found
    with keeping(config):
        return _resumed(place, before, config, changes, result, store, report, out)


def _resumed(
    place: Path,
    before: TrainConfig,
    config: TrainConfig,
    changes: Mapping[str, Any],
    result: dict[str, Any] | None,
    store: Store,
    report: Report,
    out: Log,
) -> Outcome:
    made = _planned(config, store, _search_again(changes), report, out)
    if result is not None and made.config.steps <= result["steps"]:
        return _finished(place, result, before, made.config, changes, out)
    real = _changed_names(before, made.config, changes)
    for line in _changed_lines(before, made.config, real):
        out(line)
    check_inputs(place, made, store)
    newest = _newest(place, made.config.steps, out)
    for line in consequences(before, made.config, real, step=_step_of(newest)):
        out(f"  {line}")
    return resume_from(made, place, newest, store, changes={name: _plain(get(made.config, name)) for name in real}, report=report, out=out)


def _result_of(place: Path) -> dict[str, Any] | None:
    """The result of a run; None where it has none yet. Raises Refused for a file that is none."""
    result = folder.read_json_if_there(place / folder.RESULT)
    if result is not None and not isinstance(result.get("steps"), int):
        raise Refused(f"{place / folder.RESULT} does not hold a run's result. Remove it, and resume.")
    return result


def _newest(place: Path, steps: int, out: Log) -> checkpoint.Checkpoint | None:
    """The newest intact checkpoint, from which a run of so many steps goes on. Raises Refused for one of a later step."""
    newest = checkpoint.newest(place, out)
    if newest is not None and newest.step > steps:
        raise Refused(f"steps={steps}, but {place.name} is at step {newest.step} already. Give more, or start a new run.")
    return newest


def _step_of(newest: checkpoint.Checkpoint | None) -> int:
    return 0 if newest is None else newest.step


def _stopped_early(
    place: Path, result: dict[str, Any], before: TrainConfig, config: TrainConfig, changes: Mapping[str, Any], out: Log
) -> Outcome | None:
    """The result of a run that stopped early again; None where the settings let it go on. Raises Refused for changes that do not."""
    newest = checkpoint.newest(place, out)
    reason = early_stop(history_of(newest), config.heldout, step=newest.step) if newest else None
    if newest is None or reason is None:
        return None
    more = f"Give a larger heldout.patience (null for no end), or heldout.min_steps above {newest.step}"
    if any(get(before, name) != get(config, name) for name in changes):
        raise Refused(f"{place} stopped early after step {newest.step}, and would do so again: {reason}. {more}, to continue.")
    out(f"{place} stopped early after step {newest.step} of {config.steps}: {reason}. {more}, to continue.")
    return Outcome(place, result)


def _finished(
    place: Path, result: dict[str, Any], before: TrainConfig, config: TrainConfig, changes: Mapping[str, Any], out: Log
) -> Outcome:
    """The result of a finished run again. Raises Faults for changed settings: there is no step left that they could act on."""
    steps = result["steps"]
    idle = [
        f"{name} ({_plain(get(before, name))!r} -> {_plain(get(config, name))!r})"
        for name, value in changes.items()
        if name not in ("steps", "epochs") and value is not None and get(before, name) != get(config, name)
    ]
    if idle:
        raise Faults(
            f"{place} is finished after {counted(steps, 'step')}: these changes would act on nothing. Give steps= above {steps} too:", idle
        )
    out(f"{place} is finished: {counted(steps, 'step')}. Give a larger steps= to continue.")
    return Outcome(place, result)


def _changed_names(before: TrainConfig, after: TrainConfig, changes: Collection[str]) -> list[str]:
    """Of the settings that were given, and those that the plan finds for memory, the ones with another value; epochs count as steps."""
    named = dict.fromkeys("steps" if name == "epochs" else name for name in (*changes, *SEARCHED))
    return [name for name in named if get(before, name) != get(after, name)]


def _changed_lines(before: TrainConfig, after: TrainConfig, names: Collection[str]) -> list[str]:
    return [f"changed: {name} {_plain(get(before, name))!r} -> {_plain(get(after, name))!r}" for name in names]


def consequences(before: TrainConfig, after: TrainConfig, changed_names: Collection[str], *, step: int) -> Iterator[str]:
    """What changed settings do to the steps after `step`, with numbers: the learning rate, the order of images."""
    if "steps" in changed_names and step:
        yield "the learning rate's schedule is stretched to the new number of steps"
    if step < after.steps and any(name == "steps" or name.startswith(("optim.lr", "schedule.")) for name in changed_names):
        now = learning_rate(after, step)
        if step == 0:
            yield f"the learning rate is {now:.3g} at step 1"
        elif step < before.steps:
            yield f"the learning rate of step {step + 1} is {now:.3g}; it was to be {learning_rate(before, step):.3g}"
        else:
            yield f"the learning rate was {learning_rate(before, step - 1):.3g} at step {step} and is {now:.3g} at step {step + 1}"
    if step and (drawn := [name for name in ("seed", "batch_size", "accumulate") if name in changed_names]):
        yield f"from step {step + 1} on, images and noise are drawn in another order ({', '.join(drawn)})"


def resumed_config(place: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """The run's own settings with the changes. Raises Faults for what a run cannot change."""
    own = folder.read_config(place)
    fixed = [
        f"{name} ({_plain(get(own, name))!r} -> {_plain(value)!r})"
        for name, value in changes.items()
        if _is_fixed(name) and get(own, name) != value
    ]
    if fixed:
        raise Faults(
            "A resumed run keeps its LoRA, objective, optimizer and EMA, and how it reads its data. Leave these out, or start a new run:",
            fixed,
        )
    if get(own, "schedule.name") != changes.get("schedule.name", own.schedule.name):
        options = {name: None for name in dotted_names() if name.startswith("schedule.params.")} | {"schedule.args": None}
        changes = {**options, **changes}  # options of the previous schedule
    return changed(own, changes)


def _is_fixed(name: str) -> bool:
    return name not in CHANGEABLE and any(name == fixed or (fixed.endswith(".") and name.startswith(fixed)) for fixed in FIXED)


def _changes(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (given or {}).items() if name not in FINDS}


def _plain(value: Any) -> Any:
    return getattr(value, "name", value)
