"""A server that is killed in the middle of a run: the run goes on, and the next server's pages have it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.loraloom.studio.opened import ROOT
from tests.patience import PATIENCE, until
from tests.tiny import tiny_sd1

pytestmark = pytest.mark.slow


class Server:
    """A Studio as a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.process, self.address = process, urlsplit(process.stdout.readline().strip())

    def ask(self, method: str, path: str, value: object = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.address.port or 0, timeout=PATIENCE)
        headers = {"Content-Type": "application/json", "Origin": f"http://{self.address.netloc}"} if method == "POST" else {}
        connection.request(method, f"{self.address.path}api/{path}", None if value is None else json.dumps(value).encode(), headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, found
        return found


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    environment = {**os.environ, "LORALOOM_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "loraloom", "studio", str(folder)]
    with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def test_a_run_goes_on_when_its_server_is_killed(tmp_path: Path) -> None:
    from PIL import Image

    base, images = tiny_sd1(tmp_path / "base"), tmp_path / "images"
    images.mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number, 90, 200)).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text("a colour")
    settings = [f"base={base}", f"data.path={images}", "name=colour", "steps=100000", "resolution=32", "preview.prompts=[]", "device=cpu"]
    with server(tmp_path) as first:
        first.ask("POST", "new_run/start", {"words": settings})

        def step(of: Server) -> int:
            jobs = of.ask("GET", "runs/list")["active"]
            progress = jobs[0]["progress"] if jobs else None
            return progress["done"] if progress and progress["stage"] == "train" else 0

        before = until(lambda: step(first))
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with server(tmp_path) as second:
        until(lambda: step(second) > before)
        (job,) = second.ask("GET", "runs/list")["active"]
        assert job["state"] == "running" and len(job["made"]) == 1
        second.ask("POST", "runs/stop", {"id": job["id"]})
        until(lambda: not second.ask("GET", "runs/list")["active"])
        (row,) = second.ask("GET", "runs/list")["rows"]
        assert row["name"] == "colour" and row["state"] == "stopped" and row["summary"]["step"] > before
    assert list(Path(job["made"][0], "checkpoints").iterdir())  # saved first
