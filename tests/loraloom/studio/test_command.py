"""`loraloom studio` as a process: it prints its address, serves, and ends by a signal with exit code 0."""

import os
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from loraloom.cli import main
from tests.loraloom.studio.opened import ROOT
from tests.patience import PATIENCE


@pytest.mark.slow
def test_the_command_serves_until_it_is_ended(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    environment = {**os.environ, "LORALOOM_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "loraloom", "studio", "work", "--read-only"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        try:
            address = urlsplit(server.stdout.readline().strip())
            connection = HTTPConnection("127.0.0.1", address.port or 0, timeout=PATIENCE)
            connection.request("GET", f"{address.path}api/studio")
            answer = connection.getresponse()
            assert answer.status == 200 and str(tmp_path / "work").encode() in answer.read()
            connection.close()
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 0
        said = server.stderr.read()
    assert "--read-only" in said and address.path.strip("/") not in said and "Traceback" not in said


def test_a_studio_ends_while_an_answer_waits_for_ever() -> None:
    """What the command does after it has served, in a process of its own: it ends that."""
    script = """
import threading, time
from loraloom.commands.studio import leave
threading.Thread(target=lambda: time.sleep(0.1), name="studio-answer_0").start()
leave(20)
print("went on")
threading.Thread(target=lambda: time.sleep(600), name="studio-answer_1").start()
leave(0.1)
print("not reached")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "went on\n") and "1 answer of the page did not end" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"), [(["--port", "70000"], "1 to 65535"), (["--root", "nowhere"], "no such folder"), (["nowhere"], "no such folder")]
)
def test_what_cannot_be_served_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", *words]) == 2
    assert said in capsys.readouterr().err
