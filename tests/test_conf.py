"""The presets in conf/: each composes to a valid config, and says what it is for."""

from pathlib import Path
from typing import Any

import pytest

from loraloom.cli import find_commands
from loraloom.hydra.arguments import Arguments
from loraloom.hydra.bridge import compose_hydra
from loraloom.hydra.composer import Composer
from loraloom.hydra.job import Job
from loraloom.hydra.plugins import target_fault
from loraloom.hydra.presets import Presets
from loraloom.hydra.run import configure
from loraloom.hydra.settings import read_schema
from registry.errors import Faults

CONF = Path(__file__).resolve().parents[1] / "conf"
JOBS: dict[str, Job[Any]] = {name: module.job() for name, module in find_commands().items() if hasattr(module, "job")}
CHOICES = [(job, group, option) for job in JOBS for group, options in Presets(job).groups.items() for option in options]
COMPOSED = [  # the first of each group in the plain tests
    pytest.param(job, group, option, marks=[] if option == min(options) else pytest.mark.slow)
    for job in JOBS
    for group, options in Presets(job).groups.items()
    for option in options
]


def test_the_jobs_are_these() -> None:
    assert {"train", "grid"} <= set(JOBS)


@pytest.mark.parametrize(("job", "group", "option"), COMPOSED, ids=lambda value: value)
def test_every_preset_composes(job: str, group: str, option: str) -> None:
    own = [f"{name}=given" for name, value in Presets(job).sets(group, option).items() if value == "???"]
    composer = Composer(JOBS[job], Arguments(overrides=[f"{group}={option}", *own], hydra=[]))
    request = composer.request()
    assert request.given, "a preset that sets nothing has no reason to exist"


@pytest.mark.parametrize("name", JOBS)
def test_no_setting_has_the_name_of_another_job_s_presets(name: str) -> None:
    """Hydra takes NAME=value for a choice of presets wherever conf/NAME is a folder, and fails where the job has no such group."""
    folders = {place.name for place in CONF.iterdir() if place.is_dir()}
    assert folders & {setting.partition(".")[0] for setting in read_schema(JOBS[name].schema).settings} <= Presets(name).groups.keys()


@pytest.mark.parametrize(("job", "group", "option"), CHOICES, ids=lambda value: value)
def test_every_preset_says_what_it_is_for(job: str, group: str, option: str) -> None:
    assert len(Presets(job).meaning(group, option)) > 20


@pytest.mark.parametrize("name", JOBS)
def test_the_defaults_in_conf_are_those_of_the_code(name: str) -> None:
    """So that a default is the same from the command line and from Python."""
    assert configure(JOBS[name]) == JOBS[name].schema()


@pytest.mark.parametrize("name", JOBS)
def test_hydra_makes_no_folders_of_its_own(name: str) -> None:
    import yaml

    hydra = yaml.safe_load((CONF / f"{name}.yaml").read_text())["hydra"]
    assert hydra == {"run": {"dir": "."}, "sweep": {"dir": "runs/sweeps", "subdir": "."}, "output_subdir": None}


def test_every_file_in_conf_belongs_to_a_job() -> None:
    used = {path for job in JOBS for options in Presets(job).groups.values() for path in options.values()}
    used |= {CONF / f"{job}.yaml" for job in JOBS} | set((CONF / "hydra" / "launcher").glob("*.yaml"))
    used |= {CONF / "model" / "shared" / "one_image.yaml"}  # named in the defaults of other presets
    assert set(CONF.rglob("*.yaml")) == used


@pytest.mark.parametrize("path", sorted((CONF / "hydra" / "launcher").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_launcher_composes(path: Path) -> None:
    job = JOBS["train"]
    launcher = compose_hydra("train", job.schema, [f"hydra/launcher={path.stem}"]).launcher
    assert target_fault("hydra/launcher", path.stem, launcher["_target_"], [CONF]) is None


def test_what_a_model_shares_with_others_must_be_given_too() -> None:
    with pytest.raises(Faults, match=r"base=\.\.\. must be given: model to train on"):
        configure(JOBS["train"], "model=flux1", "data=ink")


def test_hardware_comes_after_the_model() -> None:
    config = configure(JOBS["train"], "model=sdxl", "base=given", "hardware=80gb")
    assert (config.resolution, config.batch_size, config.accumulate, config.memory) == (1024, 1, 4, "80GB")


def test_hardware_presets_and_the_table_of_cards_are_what_the_plan_found() -> None:
    """Each is written by its command, and never by hand."""
    from bench.memory.cards import goals, read_figures, table
    from bench.memory.hardware import FOLDER, presets

    found = read_figures()
    assert presets(found) == {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yaml")}
    assert f"{table(found)}\n\n" in (CONF.parent / "docs" / "memory.md").read_text(encoding="utf-8")
    assert all(met for _goal, _least, met in goals(found).values()) and len(goals(found)) == 8


@pytest.mark.parametrize("value", ["jsonl", "wandb", "tensorboard", "wandb+tensorboard", "none-such"])
def test_a_tracker_is_a_preset_or_a_value_of_the_setting(value: str) -> None:
    assert configure(JOBS["train"], f"tracker={value}").tracker == value


def test_a_folder_where_a_preset_is_expected_is_answered_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "hat").mkdir()
    with pytest.raises(Faults, match=r"no preset .* of data\. .*is given as data\.path=/"):
        configure(JOBS["train"], f"data={tmp_path / 'hat'}")
