"""Plans as one types: the same as the command's, in a warm process, with each fault at its setting."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loraloom.cli import main
from loraloom.studio.planning.faults import setting_of
from loraloom.studio.planning.planner import Planned, Planner
from registry.home import home_dir
from tests.patience import until

WORDS = ["prompt=a cat", "axes.seed=[1,2,3]", "axes.steps=[2,4]"]


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    found = Planner("grid", folder=tmp_path_factory.mktemp("work"), home=home_dir())
    yield found
    found.close()


@pytest.mark.slow
def test_a_plan_is_that_of_the_command(planner: Planner, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid", *WORDS, "dry_run=true", "--json"]) == 0
    assert planner.plan(WORDS).plan == json.loads(capsys.readouterr().out)


def test_faults_are_those_of_the_command_each_with_its_setting(planner: Planner) -> None:
    faults = planner.plan(["prompt=a cat", "axes.seed=[1,x]", "base=nope", "repeats=0"]).faults
    assert {fault.setting for fault in faults} == {"axes.seed", "base", "repeats"}
    assert [fault.setting for fault in planner.plan(["stepz=3", "prompt=a"]).faults] == [None]


@pytest.mark.slow
def test_what_is_overridden_is_noted(planner: Planner) -> None:
    assert "seed=1 is ignored" in planner.plan(["prompt=a cat", "seed=1", "seed=2"]).notes[0]


@pytest.mark.slow
def test_a_question_that_a_newer_one_follows_is_dropped(planner: Planner) -> None:
    found: dict[int, Planned] = {}
    threads = [
        threading.Thread(target=lambda number=number: found.__setitem__(number, planner.plan(WORDS, page="a", number=number)))
        for number in (1, 2, 3)
    ]
    with planner._lock:
        for thread in threads:
            thread.start()
        until(lambda: planner._newest.get("a") == 3)
    for thread in threads:
        thread.join()
    assert [found[number].overtaken for number in (1, 2, 3)] == [True, True, False]
    assert found[3].plan["cells"] == 6


@pytest.mark.slow
def test_a_process_that_died_is_started_again(planner: Planner) -> None:
    assert planner._process is not None
    planner._process.kill()
    planner._process.wait()
    assert planner.plan(WORDS).plan["cells"] == 6


def test_the_settings_are_those_of_the_help(planner: Planner, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid", "--help", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    found = planner.describe()
    assert found["settings"] == shown["settings"] and found["presets"] == shown["presets"]


def test_every_page_asks_the_same_process(tmp_path: Path) -> None:
    assert Planner.of("train", folder=tmp_path, home=tmp_path) is Planner.of("train", folder=tmp_path, home=tmp_path)


NAMES = ("steps", "base", "axes.seed", "adapters")


@pytest.mark.parametrize(
    ("fault", "setting"),
    [
        ("steps is 0. Expected 1 to 1000.", "steps"),
        ("axes.seed: 'x' is not a whole number.", "axes.seed"),
        ("No checkpoint is registered as 'nope'.", "base"),
        ("No adapter is registered as 'hat', and no file is called so.", "adapters"),
        ("Leave out steps=0 there.", "steps"),
        ("nope: is a folder without model_index.json.", "base"),
        ("nope is a dataset; a checkpoint was expected.", "base"),
        ("The device has no memory.", None),
    ],
)
def test_a_fault_is_at_its_setting(fault: str, setting: str | None) -> None:
    assert setting_of(fault, ["base=nope", "adapters=ink:0.5+hat", "steps=0"], NAMES) == setting
