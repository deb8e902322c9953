"""Every setting of a training with its default, meaning and choices, the presets, and the settings of an earlier run as words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.studio.planning.planner import Planner
from loraloom.training_aliases import ALIASES
from registry.settings import spelled
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


def words_of_run(folder: Path) -> list[list[str]]:
    """[name, value as a command line has it] of what a run has that is not a default; what its plan filled in for null is among it."""
    return [[name, spelled(value)] for name, value in changed_settings(read_config(folder)).items() if name not in NOT_SHOWN]
