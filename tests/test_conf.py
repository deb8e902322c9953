"""The presets in conf/: each composes to a valid config, and says what it is for."""

from pathlib import Path
from typing import Any

import pytest

from infer.config import GridConfig
from loraloom.hydra_jobs import Composer, Finished, Job, compose, to_config, understandable
from loraloom.job_arguments import Arguments
from loraloom.presets import Presets
from train.config import TrainConfig

CONF = Path(__file__).resolve().parents[1] / "conf"
SCHEMAS: dict[str, type] = {"train": TrainConfig, "grid": GridConfig}
CHOICES = [(job, group, option) for job in SCHEMAS for group, options in Presets(job).groups.items() for option in options]


def job_of(name: str) -> Job[Any]:
    return Job(name=name, help="", schema=SCHEMAS[name], plan=lambda request: request, run=lambda _request: Finished(Path()))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(("job", "group", "option"), CHOICES, ids=lambda value: value)
def test_every_preset_composes(job: str, group: str, option: str) -> None:
    own = [f"{name}=given" for name, value in Presets(job).sets(group, option).items() if value == "???"]
    composer = Composer(job_of(job), Arguments(overrides=[f"{group}={option}", *own], hydra=[]))
    request = composer.request()
    assert request.given, "a preset that sets nothing has no reason to exist"


@pytest.mark.parametrize(("job", "group", "option"), CHOICES, ids=lambda value: value)
def test_every_preset_says_what_it_is_for(job: str, group: str, option: str) -> None:
    assert len(Presets(job).meaning(group, option)) > 20


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_defaults_in_conf_are_those_of_the_code(name: str) -> None:
    """So that a default is the same from the command line and from Python."""
    with understandable():
        assert to_config(compose(job_of(name), []), SCHEMAS[name]) == SCHEMAS[name]()


@pytest.mark.parametrize("name", SCHEMAS)
def test_hydra_makes_no_folders_of_its_own(name: str) -> None:
    import yaml

    hydra = yaml.safe_load((CONF / f"{name}.yaml").read_text())["hydra"]
    assert hydra == {"run": {"dir": "."}, "sweep": {"dir": "runs/sweeps", "subdir": "."}, "output_subdir": None}


def test_every_file_in_conf_belongs_to_a_job() -> None:
    used = {path for job in SCHEMAS for options in Presets(job).groups.values() for path in options.values()} | {
        CONF / f"{job}.yaml" for job in SCHEMAS
    }
    assert set(CONF.rglob("*.yaml")) == used
