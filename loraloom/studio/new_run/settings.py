"""Every setting of a training with its default, meaning and choices, the presets, and the settings of an earlier run as words."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.studio.planning.planner import Planner
from loraloom.studio.runs.listing import jobs_of
from loraloom.training_aliases import ALIASES
from registry.errors import Refused
from registry.settings import spelled
from train.config import TrainConfig, dotted_names, get
from train.output.folder import read_config
from train.run_report.settings import changed_settings

if TYPE_CHECKING:
    from loraloom.studio.context import Studio

JOB = "train"
FIRST = (  # on the page before all others are asked for
    "name",
    "data.trigger",
    "steps",
    "batch_size",
    "resolution",
    "lora.kind",
    "lora.rank",
    "optim.name",
    "optim.lr",
    "heldout.share",
    "preview.prompts",
    "memory",
    "seed",
)
CHOSEN = ("base", "data.path")  # from what is there
VALUE = "VALUE"  # of a setting whose name alone is asked about
NOT_SHOWN = ("dry_run", "resume", "out")  # the page's own buttons; runs are found below `runs/`


def planner_of(studio: Studio) -> Planner:
    """The process that plans trainings in the Studio's folder."""
    return Planner.of(JOB, folder=studio.folder, home=studio.home)


def described(studio: Studio) -> dict[str, Any]:
    """Settings, presets, and which of them the page begins with."""
    found = planner_of(studio).describe()
    settings = [row for row in found["settings"] if row["name"] not in NOT_SHOWN]
    return {"settings": settings, "presets": found["presets"], "chosen": found["chosen"], "first": list(FIRST), "others": other_tools()}


def other_tools() -> dict[str, str]:
    """The names of kohya's, OneTrainer's, SimpleTuner's and diffusers' settings, each with what `loraloom train` answers for it."""
    return {name: str(answer(VALUE, {name: VALUE})) for name, answer in ALIASES.items()}


def words_of_run(studio: Studio, folder: Path) -> list[list[str]]:
    """[name, value as a command line has it] of what a run was given, presets too, where a job of the queue here began it.

    Of another run what is not a default: what its plan made of the base and the images is among it, as nothing tells it apart.
    """
    config = read_config(folder)
    given = _given(studio, folder)
    if given is not None and _is_of(given, config):
        return [[name, value] for name, _, value in (word.partition("=") for word in given) if name not in NOT_SHOWN]
    return words_of(config)


def words_of(config: TrainConfig) -> list[list[str]]:
    """[name, value as a command line has it] of what is not a default, without what a plan makes of the other settings again.

    The alpha follows another rank then, and the options another optimizer, which would refuse those of this one.
    """
    from train.plan.defaults import computed_again

    again = computed_again(config)
    return [[name, spelled(value)] for name, value in changed_settings(config).items() if name not in again and name not in NOT_SHOWN]


def _given(studio: Studio, folder: Path) -> tuple[str, ...] | None:
    """The settings of the job that began the run, None where there is none, or its words mean more than NAME=VALUE in this folder."""
    active, ended = jobs_of(studio)
    of_run = [job for job in (*active, *ended) if job.words[:1] == (JOB,) and folder in job.made]
    began = min(of_run, key=lambda job: job.created, default=None)  # the others go on with it
    if began is None or began.folder != studio.folder:
        return None
    words = began.words[1:]
    changes = [job for job in of_run if job is not began and len(job.words) > 2]  # train resume=FOLDER NAME=VALUE
    return words if not changes and all("=" in word and not word.startswith("resume=") for word in words) else None


def _is_of(words: Sequence[str], config: TrainConfig) -> bool:
    """Whether the run still has what it was given: it may have been resumed with changes."""
    from loraloom.commands.train import job
    from loraloom.hydra.arguments import read_arguments
    from loraloom.hydra.composer import Composer

    made = job()
    try:
        composer = Composer(made, read_arguments(JOB, list(words), aliases=made.aliases, synonyms=made.synonyms))
        given = composer.request().given
    except Refused:
        return False
    if not {word.partition("=")[0] for word in words} <= {*dotted_names(), *composer.presets.groups}:
        return False
    return all(_still(name, value, get(config, name)) for name, value in given.items() if name not in NOT_SHOWN)


def _still(name: str, given: Any, now: Any) -> bool:
    """Whether a plan makes this of a setting that was given."""
    given, now = (one.name if isinstance(one, Enum) else list(one) if isinstance(one, tuple) else one for one in (given, now))
    if given in (None, "auto") or now == given:
        return True
    return name in CHOSEN and str(now).endswith(str(given).removeprefix("./"))
