"""Sweeps beyond lists: presets by glob, names that carry the override, searches, and plug-ins that are not installed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loraloom.hydra.job import Finished, Job, Request
from loraloom.hydra.plugins import target_fault
from loraloom.hydra.run import run_job
from registry.errors import Faults, Refused
from tests.loraloom.toy import RUNS, Toy, run_toy


def measured(request: Request[Toy]) -> Finished:
    """A run whose value is lowest at knobs.rate=0.3."""
    return replace(run_toy(request), value=(request.config.knobs.rate - 0.3) ** 2, reference=request.config.knobs.label)


def labelled(config: Toy, label: str) -> Toy:
    return replace(config, knobs=replace(config.knobs, label=f"toy@{label}"))


@pytest.fixture
def searched(toy: Job[Toy]) -> Job[Toy]:
    return replace(toy, run=measured, unmeasured=lambda _plan: None, labelled=labelled)


def faults(job: Job[Toy], *argv: str) -> str:
    with pytest.raises(Refused) as caught:
        run_job(job, argv)
    assert list(Path.cwd().iterdir()) == [], "something was left behind"
    return str(caught.value)


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(capsys.readouterr().out.splitlines()[-1], "result.json").read_text())
    return found


@pytest.mark.slow
def test_glob_runs_every_preset(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    assert run_job(toy, ["-m", "model=glob(*)", "prompt=x"]) == 0
    assert [run.config.steps for run in toy_runs] == [99, 20]  # large, small


@pytest.mark.slow
def test_glob_may_leave_presets_out(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    assert run_job(toy, ["-m", "model=glob(*,exclude=l*)"]) == 0
    assert len(toy_runs) == 1


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("model=glob(x*)", "fits no preset of model. There are: large, small."),
        ("steps=glob(*)", "glob(...) chooses among presets"),
        ("knobs.rate=interval(0.1,1)", "an interval needs a sweeper that chooses values from it. Add hydra/sweeper=optuna"),
        ("knobs.rate=interval(0.1,1)", "pip install 'loraloom[search]'"),
        ("hydra/launcher=rq", "Install it: pip install hydra-rq-launcher. Installed: basic"),
        ("hydra/sweeper=nevergrad", "Install it: pip install hydra-nevergrad-sweeper."),
        ("hydra/launcher=jolib", "Known: joblib, submitit"),
        ("hydra.sweep.dir=x", "cannot act here: runs make their own folders. Give out=DIR"),
    ],
)
def test_what_cannot_be_swept_is_refused_with_what_to_do(toy: Job[Toy], argument: str, words: str) -> None:
    assert words in faults(toy, "-m", argument, "steps=1,2")


def test_a_missing_plug_in_is_reported_once(toy: Job[Toy]) -> None:
    assert faults(toy, "-m", "hydra/launcher=rq", "steps=1,2,3").count("hydra-rq-launcher") == 1


def test_a_plug_in_that_cannot_be_imported_names_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "hydra_plugins" / "broken_launcher"
    broken.mkdir(parents=True)
    (broken / "launcher.py").write_text("import a_package_that_nobody_has\n")
    import hydra_plugins

    monkeypatch.setattr(hydra_plugins, "__path__", [*hydra_plugins.__path__, str(broken.parent)])
    fault = target_fault("hydra/launcher", "mine", "hydra_plugins.broken_launcher.launcher.Launcher", ())
    assert fault is not None
    assert "No module named 'a_package_that_nobody_has'" in fault
    assert "pip install a_package_that_nobody_has" in fault


@pytest.mark.slow
def test_runs_of_a_sweep_carry_their_override_in_the_name(searched: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    run_job(searched, ["-m", "knobs.rank=1,16", "model=small", "mode=quick,careful"])
    assert [run["reference"] for run in result(capsys)["runs"]] == [
        f"toy@knobs.rank={rank},mode={mode}" for rank in (1, 16) for mode in ("quick", "careful")
    ]


@pytest.mark.slow
def test_a_sweep_names_its_best_run(searched: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    run_job(searched, ["-m", "knobs.rate=0.1,0.4,0.9"])
    found = result(capsys)
    assert [round(run["value"], 6) for run in found["runs"]] == [0.04, 0.01, 0.36]
    assert (found["best"]["number"], found["best"]["overrides"]) == (1, ["knobs.rate=0.4"])


@pytest.mark.slow
def test_optuna_begins_with_the_configs_own_value_and_finds_a_better_one(searched: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    run_job(searched, ["-m", "hydra/sweeper=optuna", "knobs.rate=interval(0,1)", "hydra.sweeper.n_trials=6"])
    found = result(capsys)
    assert RUNS[0].config.knobs.rate == 0.5
    assert len({run["overrides"][-1] for run in found["runs"]}) == 6
    assert found["best"]["value"] == min(run["value"] for run in found["runs"]) < (0.5 - 0.3) ** 2
    assert "best_value" in Path(found["best"]["folder"]).parents[2].joinpath(*_sweep_folder()).read_text()


def _sweep_folder() -> tuple[str, ...]:
    (path,) = Path.cwd().glob("runs/sweeps/*/optimization_results.yaml")
    return path.relative_to(Path.cwd()).parts


@pytest.mark.slow
def test_the_same_seed_searches_the_same(searched: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    words = ["-m", "hydra/sweeper=optuna", "knobs.rate=tag(log, interval(1e-3,1))", "hydra.sweeper.n_trials=4"]
    run_job(searched, words)
    run_job(searched, words)
    rates = [run.config.knobs.rate for run in toy_runs]
    assert rates[:4] == rates[4:]


@pytest.mark.slow
def test_a_search_takes_whole_numbers_lists_ranges_and_presets(searched: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    space = ["knobs.rank=interval(2,4)", "steps=range(10,31,10)", "mode=quick,careful", "model=small,large", "prompt=x"]
    run_job(searched, ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", *space])
    assert {run.config.knobs.rank for run in toy_runs} <= {2, 3, 4}
    assert {run.config.steps for run in toy_runs} <= {10, 20, 30}
    assert len(toy_runs) == 5


@pytest.mark.slow
def test_a_search_can_maximize_and_survives_a_failed_trial(searched: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=3", 'prompt="fail","go"']
    assert run_job(searched, ["-m", *words, "knobs.rate=interval(0.0,1.0)"]) in (0, 1)
    found = result(capsys)
    assert len(found["runs"]) == 3
    assert found["best"]["value"] == max(run["value"] for run in found["runs"] if run["value"] is not None)


def test_a_job_that_measures_nothing_is_not_searched(toy: Job[Toy]) -> None:
    words = faults(toy, "-m", "hydra/sweeper=optuna", "knobs.rate=interval(0.1,1.0)")
    assert "loraloom toy cannot be searched: it measures no value" in words


def test_both_ends_of_an_interval_are_checked_before_the_first_trial(searched: Job[Toy]) -> None:
    with pytest.raises(Faults, match="steps must be at least 1, got 0"):
        run_job(searched, ["-m", "hydra/sweeper=optuna", "steps=interval(0,4)"])
    assert "expected a whole number" in faults(searched, "-m", "hydra/sweeper=optuna", "steps=interval(1.5,4)")


@pytest.mark.slow
def test_the_params_that_a_preset_gives_the_sweeper_are_checked_and_run(
    searched: Job[Toy], toy_runs: list[Request[Toy]], tmp_path: Path
) -> None:
    text = "# @package _global_\nhydra: {sweeper: {params: {%s: '1,2'}}}\n"
    (tmp_path / "conf" / "knobs" / "swept.yaml").write_text(text % "knobs.rank")
    (tmp_path / "conf" / "knobs" / "typo.yaml").write_text(text % "knobs.rnak")
    run_job(searched, ["-m", "knobs=swept"])
    assert [run.config.knobs.rank for run in toy_runs] == [1, 2]
    with pytest.raises(Faults, match=r"no setting 'knobs\.rnak'"):
        run_job(searched, ["-m", "knobs=typo"])
