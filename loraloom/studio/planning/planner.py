"""The warm processes that plan, one for each job, folder and home, and how they are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from loraloom.queue.environment import with_own_path
from registry.errors import JobFailed, Refused
from registry.plain_values import from_json

SECONDS = 120.0  # a plan may take: the first one reads all hashes of a large file
MOST_PAGES = 1000  # whose last question is remembered


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the setting that it is of, where that is known."""

    setting: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The answer to a question: a plan, as JSON and as text, or faults; `overtaken` is neither, since a newer question waits."""

    plan: Any = None
    text: str = ""
    notes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    overtaken: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values for a page."""
        faults = [{"setting": one.setting, "text": one.text} for one in self.faults]
        return {"plan": self.plan, "text": self.text, "notes": list(self.notes), "faults": faults, "overtaken": self.overtaken}


class Planner:
    """The process of one job (`train`, `grid`, `merge`): started at the first question, started again where it has died."""

    _all: ClassVar[dict[tuple[str, Path, Path], Planner]] = {}
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, job: str, *, folder: Path, home: Path) -> None:
        self._job, self._folder, self._home = job, folder, home
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}  # page -> the number of its last question
        self._counting = threading.Lock()  # held for a moment, also while a plan is made
        self._described: dict[str, Any] | None = None

    @classmethod
    def of(cls, job: str, *, folder: Path, home: Path) -> Planner:
        """The one planner of a job, in a working folder and with a home: every page asks the same process."""
        with cls._making:
            return cls._all.setdefault((job, folder, home), cls(job, folder=folder, home=home))

    def plan(self, words: Sequence[str], *, page: str = "", number: int = 0) -> Planned:
        """The plan of `loraloom JOB WORDS`. Of the questions of one page, numbered upwards, those that a newer one follows are dropped."""
        if page:
            with self._counting:
                self._newest[page] = max(number, self._newest.get(page, number))
                while len(self._newest) > MOST_PAGES:
                    self._newest.pop(next(iter(self._newest)))
        with self._lock:
            if page and self._newest.get(page, number) > number:
                return Planned(overtaken=True)
            found = self._asked("plan", list(words))
        if "faults" in found:
            return Planned(faults=tuple(Fault(one["setting"], one["text"]) for one in found["faults"]))
        return Planned(plan=found["plan"], text=found["text"], notes=tuple(found["notes"]))

    def describe(self) -> dict[str, Any]:
        """`settings` (name, default, type, help) and `presets` as `loraloom JOB --help --json` lists them, `chosen` presets by group."""
        with self._lock:
            if self._described is None:
                found = self._asked("describe", [])
                if "faults" in found:
                    raise JobFailed(found["faults"][0]["text"])
                self._described = found
            return self._described

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._end()

    def _asked(self, task: str, words: list[str]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        watch = threading.Timer(SECONDS, process.kill)
        watch.start()
        try:
            process.stdin.write(json.dumps({"task": task, "words": words}).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            watch.cancel()
        if not line.endswith(b"\n"):
            self._end()
            raise JobFailed(f"The process that plans ended, or gave no plan within {SECONDS:.0f} s. Ask again: it is started anew.")
        found: dict[str, Any] = from_json(line)
        return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "loraloom.studio.planning.child", self._job],
                    cwd=self._folder,
                    env=with_own_path({**os.environ, "LORALOOM_HOME": str(self._home)}),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            except OSError as error:
                raise Refused(f"Nothing can be planned in {self._folder}: {error.strerror}.") from error
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        process.kill()
        process.wait()
