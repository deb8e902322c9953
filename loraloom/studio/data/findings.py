"""`loraloom data lint` of a set, in a thread: its findings are kept while the set is as it was."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import LoomError
from registry.progress import Tick
from train.config import DataConfig
from train.data.lint import Lint, lint

MOST_SETS = 16  # whose findings are kept

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LintOptions:
    """What `data lint` is given beside the set."""

    trigger: str | None = None
    resolution: int | None = None
    masks: str = "none"

    def words(self, folder: Path) -> list[str]:
        """The command, behind `loraloom`."""
        found = ["data", "lint", str(folder)]
        found += [f"--trigger={self.trigger}"] if self.trigger else []
        found += ["--resolution", str(self.resolution)] if self.resolution else []
        return found + (["--masks", self.masks] if self.masks != "none" else [])


@dataclass
class Looked:
    """One lint: under way, or done. `of` is the state of the set that it read."""

    of: str
    options: LintOptions
    done: int = 0
    total: int = 0
    result: Lint | None = None
    error: str | None = None
    number: int = 0

    @property
    def is_running(self) -> bool:
        return self.result is None and self.error is None

    def by_image(self) -> dict[str, list[str]]:
        """The checks of each image that something was found of."""
        found: dict[str, list[str]] = {}
        for finding in self.result.findings if self.result else ():
            for name in finding.images:
                found.setdefault(name, []).append(finding.check)
        return found

    def to_json(self, now: str) -> dict[str, Any]:
        """What the page shows; `now` is the state of the set."""
        result = self.result
        return {
            "running": self.is_running,
            "done": self.done,
            "total": self.total,
            "error": self.error,
            "number": self.number,
            "stale": self.of != now,
            "trigger": self.options.trigger,
            "faults": list(result.faults) if result else [],
            "notes": list(result.notes) if result else [],
            "findings": [finding.to_json() for finding in result.findings] if result else [],
        }


@dataclass
class Findings:
    """The lints of this process."""

    _kept: OrderedDict[Path, Looked] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Lock = field(default_factory=threading.Lock)  # one set is read at a time
    _number: int = 0

    def of(self, folder: Path) -> Looked | None:
        """The last lint of a set, or None."""
        return self._kept.get(folder)

    def start(self, folder: Path, state: str, options: LintOptions) -> Looked:
        """Begin to look a set over, unless it is looked over now, or was as it is and with these options."""
        with self._lock:
            known = self._kept.get(folder)
            if known is not None and (known.is_running or (known.of == state and known.options == options and known.result is not None)):
                return known
            self._number += 1
            looked = self._kept[folder] = Looked(state, options, number=self._number)
            self._kept.move_to_end(folder)
            while len(self._kept) > MOST_SETS:
                self._kept.popitem(last=False)
        threading.Thread(target=self._run, args=(looked, folder), daemon=True, name="studio-lint").start()
        return looked

    def _run(self, looked: Looked, folder: Path) -> None:
        def report(tick: Tick) -> None:
            looked.done, looked.total = tick.done, tick.total

        with self._turn:
            try:
                options = looked.options
                config = DataConfig(path=str(folder), masks=options.masks, trigger=options.trigger)
                looked.result = lint(config, resolution=options.resolution, report=report)
            except (LoomError, OSError) as error:
                looked.error = str(error)
            except Exception as error:
                log.exception("the lint of %s", folder)
                looked.error = f"{type(error).__name__}: {error}. This is a fault of loraloom itself."
        with self._lock:
            self._number += 1
            looked.number = self._number


FINDINGS = Findings()
