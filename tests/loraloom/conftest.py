"""The toy job, in an empty working directory."""

from pathlib import Path

import pytest

from loraloom.hydra.job import Job, Request
from tests.loraloom.toy import CONF, RUNS, Toy, ToyPlan, run_toy


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job[Toy]:
    """The job `toy` with its own conf folder; the working directory is empty."""
    conf = tmp_path / "conf"
    for name, text in CONF.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(text)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("loraloom.hydra.presets.conf_dir", lambda: conf)
    RUNS.clear()
    return Job(name="toy", help="A toy job.", schema=Toy, plan=ToyPlan, run=run_toy, examples=("loraloom toy steps=3",))


@pytest.fixture
def toy_runs() -> list[Request[Toy]]:
    """What the toy job was run with, in order."""
    return RUNS
