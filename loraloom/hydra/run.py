"""From a job's command line to its answer: help, config, plan, run or sweep."""

from collections.abc import Sequence
from typing import Any, TypeVar

from loraloom import console
from loraloom.hydra.arguments import Arguments, read_arguments
from loraloom.hydra.bridge import call_hydra
from loraloom.hydra.composer import Composer
from loraloom.hydra.help import show_help
from loraloom.hydra.job import Job
from loraloom.hydra.sweep import run_sweep
from registry.errors import Faults

C = TypeVar("C")


def run_job(job: Job[Any], argv: Sequence[str]) -> int:
    """Answer the command line of a job: its help, its config, its plan, its run or its sweep."""
    arguments = read_arguments(job.name, argv)
    composer = Composer(job, arguments)
    if arguments.help:
        show_help(job, composer, as_json=arguments.json)
        return 0
    if arguments.hydra:
        composer.check()
        call_hydra(job.name, job.schema, [*arguments.hydra, *composer.overrides], lambda _raw: None)  # --cfg
        return 0
    if arguments.multirun:
        return run_sweep(job, composer)
    try:
        request = composer.request()
    except Faults as error:
        raise composer.with_what_the_plan_finds(error) from error
    if getattr(request.config, "dry_run", False):
        plan = job.plan(request)
        console.answer_json(plan.to_json()) if arguments.json else console.answer(plan.to_text())
        return 0
    finished = job.run(request)
    console.answer(str(finished.folder.absolute()))
    return finished.exit_code


def configure(job: Job[C], *overrides: str) -> C:
    """The checked config that the job's command would have with these arguments: configure(job(), "experiment=ink")."""
    config = Composer(job, Arguments(overrides=list(overrides), hydra=[])).request().config
    assert isinstance(config, job.schema)
    return config
