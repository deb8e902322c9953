"""SIGTERM and SIGHUP end every command as Ctrl-C does: exit code 130, and what a job does when it is interrupted is done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.patience import PATIENCE

JOB = """if True:
    import pathlib, signal, sys, time
    from loraloom import cli, console
    if "nohup" in sys.argv:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    def work(words):
        try:
            console.answer("up")
            time.sleep(1 if "nohup" in sys.argv else 60)
        finally:
            time.sleep(0.3)
            pathlib.Path("kept").write_text("what was done")
        return 0
    cli.run = work
    sys.exit(cli.main([]))
"""


def started(folder: Path, *words: str) -> "subprocess.Popen[str]":
    child = subprocess.Popen([sys.executable, "-c", JOB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    return child


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_job_that_is_asked_to_end_keeps_its_state_and_gives_130(number: signal.Signals, tmp_path: Path) -> None:
    with started(tmp_path) as child:
        child.send_signal(number)
        _, reported = child.communicate(timeout=PATIENCE)
    assert (child.returncode, reported) == (130, "interrupted\n")
    assert (tmp_path / "kept").read_text() == "what was done"


@pytest.mark.slow
def test_a_closed_terminal_sends_sighup_twice_and_the_state_is_kept(tmp_path: Path) -> None:
    with started(tmp_path) as child:
        for _ in range(3):
            child.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        child.wait(timeout=PATIENCE)
    assert child.returncode == 130 and (tmp_path / "kept").is_file()


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "nohup") as child:
        child.send_signal(signal.SIGHUP)
        child.wait(timeout=PATIENCE)
    assert child.returncode == 0 and (tmp_path / "kept").is_file()
