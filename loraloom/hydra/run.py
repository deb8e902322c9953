"""From a job's command line to its answer: help, config, plan, run or sweep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from loraloom import console
from loraloom.hydra.arguments import Arguments, read_arguments
from loraloom.hydra.bridge import call_hydra
from loraloom.hydra.composer import Composer
from loraloom.hydra.help import show_help
from loraloom.hydra.job import Finished, Job, Request
from loraloom.hydra.sweep import run_sweep
from registry.errors import Faults

if TYPE_CHECKING:
    from omegaconf import DictConfig

C = TypeVar("C")


def run_job(job: Job[Any], argv: Sequence[str]) -> int:
    """Answer the command line of a job: its help, its config, its plan, its run or its sweep."""
    arguments = read_arguments(job.name, argv, aliases=job.aliases, synonyms=job.synonyms)
    composer = Composer(job, arguments)
    if arguments.help:
        show_help(job, composer, as_json=arguments.json)
        return 0
    if arguments.hydra:
        return _let_hydra_answer(job, composer)
    if arguments.multirun:
        return run_sweep(job, composer)
    try:
        request = composer.request()
    except Faults as error:
        raise composer.with_what_the_plan_finds(error) from error
    if getattr(request.config, "dry_run", False):
        plan = job.plan(request)
        console.answer_json(plan.to_json()) if arguments.json else console.answer_lines(plan.to_text())
        return 0
    finished = _run_in_hydra(job, composer) if composer.hydra_settings else job.run(request)
    console.answer(str(finished.folder.absolute()))
    return finished.exit_code


def _let_hydra_answer(job: Job[Any], composer: Composer) -> int:
    """--cfg, --info, --hydra-help and --shell-completion."""
    arguments = composer.arguments
    if arguments.completion:
        folder = [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
        words = [*arguments.hydra, *folder, *arguments.overrides]
        call_hydra(job.name, job.schema, words, lambda _raw: None, program="loraloom")
        return 0
    composer.check()
    call_hydra(job.name, job.schema, [*arguments.hydra, *composer.overrides], lambda _raw: None)
    return 0


def _run_in_hydra(job: Job[Any], composer: Composer) -> Finished:
    """A single run inside Hydra's own, so that hydra.verbose, hydra.callbacks, hydra.job.env_set and loggers act."""
    from hydra.core.hydra_config import HydraConfig

    ends: list[Finished | BaseException] = []

    def task(raw: "DictConfig") -> None:
        console.set_verbose(HydraConfig.get().verbose)
        try:
            request: Request[Any] = composer.request_from(raw, composer.overrides)
            ends.append(job.run(request))
        except BaseException as error:  # raised again outside of Hydra, which would take it for a fault of the config
            ends.append(error)

    call_hydra(job.name, job.schema, composer.overrides, task)
    if isinstance(ends[0], BaseException):
        raise ends[0]
    return ends[0]


def configure(job: Job[C], *overrides: str) -> C:
    """The checked config that the job's command would have with these arguments: configure(job(), "experiment=ink")."""
    config = requested(job, overrides).config
    assert isinstance(config, job.schema)
    return config


def requested(job: Job[C], overrides: Sequence[str]) -> Request[C]:
    """The same, with what of it was given."""
    return Composer(job, Arguments(overrides=list(overrides), hydra=[])).request()
