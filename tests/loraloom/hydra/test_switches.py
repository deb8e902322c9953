"""Hydra's own switches, settings of Hydra in a single run, groups of one's own, completion."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loraloom.cli import main
from loraloom.hydra.job import Finished, Job, Request
from loraloom.hydra.run import run_job
from tests.loraloom.toy import Toy


@pytest.mark.slow
def test_info_shows_what_hydra_knows(toy: Job[Toy], toy_runs: list[Request[Toy]], capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "defaults": "| model/small",
        "defaults-tree": "  model: small",
        "config": "steps: 20",
        "plugins": "BasicSweeper",
        "searchpath": "pkg://hydra.conf",
    }
    for what, words in expected.items():
        assert run_job(toy, ["--info", what]) == 0
        assert words in capsys.readouterr().out, what
    assert run_job(toy, ["--info", "steps=7"]) == 0
    assert "steps: 7" in capsys.readouterr().out
    assert toy_runs == []


@pytest.mark.slow
def test_hydra_help_is_hydras(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["--hydra-help"]) == 0
    assert "== Flags ==" in capsys.readouterr().out


@pytest.mark.slow
def test_verbose_shows_debug_records_in_a_single_run(toy: Job[Toy], toy_runs: list[Request[Toy]]) -> None:
    import logging

    root = logging.getLogger()
    before = root.level
    run_job(toy, ["hydra.verbose=true", "steps=3"])
    assert toy_runs[0].config.steps == 3
    assert logging.getLogger("loraloom").level == logging.DEBUG
    assert root.level == before


def test_the_environment_of_a_job_acts_in_a_single_run(toy: Job[Toy], tmp_path: Path) -> None:
    seen: list[str | None] = []

    def run(request: Request[Toy]) -> Finished:
        seen.append(os.environ.get("TOY"))
        return toy.run(request)

    run_job(replace(toy, run=run), ["+hydra.job.env_set.TOY=yes"])
    assert seen == ["yes"]
    assert "TOY" not in os.environ


@pytest.mark.slow
def test_an_error_of_a_run_inside_hydra_stays_what_it_is(toy: Job[Toy]) -> None:
    with pytest.raises(RuntimeError, match="the toy broke"):
        run_job(toy, ["hydra.verbose=true", "prompt=fail"])


@pytest.mark.slow
def test_groups_of_ones_own(toy: Job[Toy], toy_runs: list[Request[Toy]], tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "mygroup").mkdir(parents=True)
    (own / "mygroup" / "a.yaml").write_text("# @package _global_\nsteps: 41\nknobs: {rate: 0.25}\n")
    (own / "mygroup" / "b.yaml").write_text("# @package _global_\nsteps: 42\n")
    run_job(toy, ["--config-dir", str(own), "+mygroup=a"])
    run_job(toy, ["--config-dir", str(own), "-m", "+mygroup=a,b"])
    assert [run.config.steps for run in toy_runs] == [41, 41, 42]
    assert dict(toy_runs[0].given) == {"steps": 41, "knobs.rate": 0.25}


def test_a_mistyped_option_of_ones_own_group_is_refused_with_the_nearest(toy: Job[Toy], tmp_path: Path) -> None:
    (tmp_path / "own" / "mygroup").mkdir(parents=True)
    (tmp_path / "own" / "mygroup" / "alpha.yaml").write_text("# @package _global_\nsteps: 41\n")
    from registry.errors import Faults

    with pytest.raises(Faults, match=r"no preset 'alhpa' of mygroup\. Did you mean 'alpha'"):
        run_job(toy, ["--config-dir", str(tmp_path / "own"), "+mygroup=alhpa"])


def completed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    return capsys.readouterr().out.split()


@pytest.mark.slow
def test_completion_of_commands_presets_settings_and_switches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(capsys, monkeypatch, "loraloom tr") == ["train"]
    assert "hardware=24gb" in completed(capsys, monkeypatch, "loraloom train hardware=")
    assert "optim.lr=" in completed(capsys, monkeypatch, "loraloom train experiment=ink optim.l")
    assert completed(capsys, monkeypatch, "loraloom registry li") == ["lineage", "list"]
    assert "--json" in completed(capsys, monkeypatch, "loraloom registry list --js")
    assert completed(capsys, monkeypatch, "loraloom train 'prompt=a (") == []


@pytest.mark.slow
def test_the_script_of_bash_completes_loraloom(toy: Job[Toy], tmp_path: Path) -> None:
    """The script that --shell-completion prints, in a real bash."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program = bin_ / "loraloom"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m loraloom "$@"\n')
    program.chmod(0o755)
    root = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": root}
    line = "loraloom train hardw"
    script = f"""
eval "$(loraloom train --shell-completion install=bash)"
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD=2
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hardware="]


def test_cfg_as_before_is_checked(toy: Job[Toy], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(toy, ["--cfg", "hydra", "--package", "hydra.run"]) == 0
    assert "dir: ." in capsys.readouterr().out
