"""Commands in processes of their own, to be killed at a moment: how they are started, and how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[2]
FAULT = "fault of loraloom itself"
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), what it printed, and its seconds."""

    code: int
    printed: str
    seconds: float

    @property
    def faulty(self) -> bool:
        return FAULT in self.printed or "Traceback" in self.printed


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, **QUIET, "LORALOOM_HOME": str(home)}


def start(home: Path, *words: object, folder: Path) -> subprocess.Popen[str]:
    """A command that runs in `folder`, in a group of its own."""
    command = [sys.executable, "-m", "loraloom", *map(str, words)]
    return subprocess.Popen(
        command, cwd=folder, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], *, began: float | None = None) -> Ended:
    printed, _ = process.communicate(timeout=300)
    return Ended(process.returncode, printed, time.monotonic() - (began or time.monotonic()))


def call(home: Path, *words: object, folder: Path) -> Ended:
    """The command, run to its end."""
    began = time.monotonic()
    return finish(start(home, *words, folder=folder), began=began)


def killed(home: Path, *words: object, folder: Path, after: float) -> Ended:
    """The command, ended by SIGKILL after so many seconds, or before by itself."""
    began = time.monotonic()
    process = start(home, *words, folder=folder)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return finish(process, began=began)


def moments(rng: Random, whole: float, count: int, *, first: float = 0.0) -> list[float]:
    """Random seconds at which to kill a job that takes `whole`, from the share `first` of it on."""
    return sorted(rng.uniform(first * whole, whole) for _ in range(count))


def left_over(*folders: Path) -> list[Path]:
    """Unfinished files and folders."""
    return sorted(entry for folder in folders for entry in folder.rglob(".tmp-*"))
