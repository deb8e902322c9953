"""`loraloom train KEY=VALUE ...`: a LoRA from an image-caption set, registered with its lineage."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

HELP = "train a LoRA on an image-caption set"

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loraloom.hydra.job import Finished, Job, Plan, Request
    from train.config import TrainConfig

ABOUT = """\
Trains a LoRA adapter on images with captions, and registers it with what it was made from. The run folder holds the
adapter, its checkpoints, curves and previews; a run that was stopped goes on with resume=RUN_FOLDER."""

EXAMPLES = (
    "loraloom train experiment=ink dry_run=true",
    "loraloom train data.path=~/images/hat data.trigger=ohwx steps=800",
    "loraloom train model=sdxl base=~/models/sdxl.safetensors data.path=~/images/hat lora.rank=32",
    "loraloom train --multirun experiment=ink lora.rank=4,16 seed=1,2",
    "loraloom train resume=latest name=hat steps=1200",
    "loraloom train --from-kohya config.toml dataset.toml dry_run=true",
    "loraloom train --from-onetrainer config.json dry_run=true",
)


def job() -> "Job[TrainConfig]":
    """The job behind the command: its schema, its plan, its run."""
    from loraloom.hydra.job import Job
    from loraloom.training_aliases import ALIASES
    from train.config import TrainConfig

    return Job(
        name="train",
        help=ABOUT,
        schema=TrainConfig,
        plan=_plan,
        run=_run,
        examples=EXAMPLES,
        unmeasured=_unmeasured,
        labelled=_labelled,
        summary=_summary,
        aliases=ALIASES,
        synonyms={"lora.from": "lora.start"},  # `from` is a word of Python's own, and cannot be a setting's name
        exclusive=(("steps", "epochs"),),
        sources=frozenset({"data.path", "data.sets", "data.preferences"}),
    )


def run(argv: list[str]) -> int:
    """Answer the command line after `loraloom train`; gives the exit code."""
    from loraloom.hydra.run import run_job
    from loraloom.kohya import command as kohya
    from loraloom.onetrainer import command as onetrainer

    made = job()
    for tool in (kohya, onetrainer):
        if tool.is_asked(argv):
            words = tool.words_of(argv, made)
            return 0 if words is None else run_job(made, words)
    return run_job(made, argv)


def _plan(request: "Request[TrainConfig]") -> "Plan":
    from loraloom import console
    from registry.store import Store
    from train.run import plan

    with console.progress() as report:
        return plan(request.config, Store(), given=request.given, fixed=request.typed, report=report)


def _run(request: "Request[TrainConfig]") -> "Finished":
    from loraloom import console
    from loraloom.hydra.job import Finished
    from registry.launch.importing import importing

    with importing():
        from registry.store import Store
        from train.run import run

    with console.progress() as report:
        outcome = run(request.config, Store(), given=request.given, fixed=request.typed, report=report, out=console.say)
    heldout = outcome.result.get("heldout") or {}  # only the first process of several has a result
    return Finished(outcome.folder, reference=outcome.result.get("adapter"), value=heldout.get("best"))


def _unmeasured(plan: Any) -> str | None:
    """Why a run of this plan would have no held-out loss."""
    if plan.heldout:
        return None
    return "a search lowers the held-out loss, and there are no held-out images. Give heldout.share=0.1, or heldout.path=DIR"


def _summary(runs: "Sequence[Mapping[str, Any]]") -> list[str]:
    """The runs of a sweep that stopped early, and what the parts of one set show together."""
    from train.output.folder import RESULT, read_json_if_there

    lines = []
    for run in runs:
        result = read_json_if_there(Path(run["folder"]) / RESULT) if run["folder"] and not run["exit_code"] else None
        if stopped := (result or {}).get("stopped_early"):
            lines.append(f"run {run['number']} stopped early after step {stopped['step']} of {stopped['of']}: {stopped['reason']}")
    return [*lines, *_folds(runs)]


def _folds(runs: "Sequence[Mapping[str, Any]]") -> list[str]:
    """The parts of one set together: every image measured by the run that was not trained on it."""
    from train.output.folder import RESULT, read_json_if_there
    from train.output.verdict import pooled

    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        if any(override.startswith("heldout.fold=") for override in run["overrides"]) and not run["exit_code"]:
            groups.setdefault(tuple(o for o in run["overrides"] if not o.startswith("heldout.fold=")), []).append(run)
    lines = []
    for others, together in groups.items():
        results = [read_json_if_there(Path(run["folder"]) / RESULT) for run in together]
        found = pooled([result for result in results if result])
        if len(together) > 1 and found is not None:
            of = f" ({' '.join(others)})" if others else ""
            lines.append(f"{len(together)} parts together{of}: {found.sentence()}")
    return lines


def _labelled(config: "TrainConfig", label: str) -> "TrainConfig":
    """The settings with a sweep's override in the run's name: ink@lora.rank=4. A resumed run keeps its own."""
    from dataclasses import replace

    from train.plan.defaults import name_of

    return config if config.resume is not None else replace(config, name=f"{name_of(config)}@{label}")
