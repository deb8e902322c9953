"""`loraloom grid KEY=VALUE ...`: a comparison grid, drawn cell by cell, with a sheet and a report."""

from typing import TYPE_CHECKING

from registry.printable import counted

HELP = "draw a comparison grid over axes (prompts, seeds, adapters, weights, samplers, ...)"

if TYPE_CHECKING:
    from infer.grid.config import GridConfig
    from loraloom.hydra.job import Finished, Job, Plan, Request

ABOUT = """\
Draws every combination of the axes' values into one labelled sheet and one self-contained HTML report. Images that were
drawn before, by this or another grid, are not drawn again."""

EXAMPLES = (
    "loraloom grid 'prompt=a cat, in (a red) hat!' 'axes.seed=[1,2,3]'",
    """loraloom grid 'axes.prompt=["a cat","a dog!"]' 'axes.adapter=[none,ink:0.5,ink]'""",
    "loraloom grid prompt='a house' 'axes.adapter=[ink@step-*]' dry_run=true",
    "loraloom grid study=weights adapters=ink prompt='a house'",
    "loraloom grid from=photo.png 'axes.adapter=[none,ink]' axes.seed=1-2",
)
SYNONYMS = {"from": "from_image"}  # `from` is a word of Python's own, and cannot be a setting's name


def run(argv: list[str]) -> int:
    """Answer the command line after `loraloom grid`; gives the exit code."""
    from loraloom.hydra.run import run_job

    return run_job(job(), argv)


def job() -> "Job[GridConfig]":
    """The job behind the command."""
    from infer.grid.config import GridConfig
    from loraloom.hydra.job import Job

    return Job(name="grid", help=ABOUT, schema=GridConfig, plan=_plan, run=_run, examples=EXAMPLES, synonyms=SYNONYMS)


def _plan(request: "Request[GridConfig]") -> "Plan":
    from infer.grid.job import plan
    from registry.store import Store

    return plan(request.config, Store(), given=given_settings(request))


def given_settings(request: "Request[GridConfig]") -> list[str]:
    """The settings that the command line gives, by the name of the whole setting."""
    return list(dict.fromkeys(name.partition(".")[0] for name in request.given))


def _run(request: "Request[GridConfig]") -> "Finished":
    from infer.grid.job import run
    from loraloom import console
    from loraloom.hydra.job import Finished
    from registry.store import Store

    with console.progress() as report:
        outcome = run(request.config, Store(), given=given_settings(request), report=report)
    result = outcome.result
    for note in outcome.notes:
        console.say(f"note: {note}")
    counts = f"{result['rendered']} drawn, {result['reused']} reused, {result['failed']} failed"
    if twins := result["cells"] - result["rendered"] - result["reused"] - result["failed"]:
        counts += f", {twins} the same image as another of these"
    console.say(f"{counted(result['cells'], 'cell')}: {counts}, {result['seconds']:.1f} s")
    console.say(f"report: {result['report']}")
    if result["failed"]:
        console.say(f"error: {counted(result['failed'], 'cell')} could not be drawn; cells.jsonl and the report say why.")
    return Finished(outcome.folder, exit_code=1 if result["failed"] else 0)
