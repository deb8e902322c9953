"""progress.json: the last Tick of a job that runs, for those who look at it from another process.

It is a view, not a state: it is replaced whole, and not synced, as a power cut ends the job that it is about.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.files.unfinished import TEMPORARY
from registry.plain_values import from_json
from registry.progress import Report, Tick

NAME = "progress.json"
SECONDS_BETWEEN = 1.0  # of the writes within a stage
SECONDS_BETWEEN_STAGES = 0.1  # what begins or ends a stage is written at once, as the next unit may take minutes


@dataclass(frozen=True)
class Progress:
    """A Tick as it was written, and when."""

    stage: str
    done: int
    total: int  # 0: not known
    values: Mapping[str, float | None] = field(default_factory=dict)  # None: not a finite number
    note: str = ""
    seconds_left: float | None = None
    at: datetime = datetime.min

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys; `at` in ISO 8601."""
        return {
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "values": dict(self.values),
            "note": self.note,
            "seconds_left": self.seconds_left,
            "at": self.at.isoformat(),
        }


class ProgressFile:
    """A Report that keeps the last Tick in a file, at most once a second and at both ends of a stage, and calls another Report."""

    def __init__(self, path: Path, report: Report) -> None:
        self.path = path
        self.report = report
        self.stage: str | None = None
        self.written = -math.inf  # when, by the monotonic clock
        self.noted = False  # whether what was written last has a note
        self._temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")

    def __call__(self, tick: Tick) -> None:
        self.report(tick)
        now = time.monotonic()
        ended = tick.done >= tick.total > 0 or (self.noted and not tick.note)  # a note is over where the next tick has none
        inside = tick.stage == self.stage and not ended
        if now - self.written >= (SECONDS_BETWEEN if inside else SECONDS_BETWEEN_STAGES):
            self.stage, self.written, self.noted = tick.stage, now, bool(tick.note)
            self._write(tick)

    def _write(self, tick: Tick) -> None:
        values = {name: value if math.isfinite(value) else None for name, value in tick.values.items()}
        at = datetime.now(UTC)
        found = Progress(tick.stage, tick.done, tick.total, values, tick.note, tick.seconds_left, at)
        try:
            self._temporary.write_text(json.dumps(found.to_json(), ensure_ascii=False), encoding="utf-8", errors="replace")
            os.replace(self._temporary, self.path)
        except OSError:  # a full disk ends no job for the sake of a view of it
            self._temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file: the job has ended."""
        self.path.unlink(missing_ok=True)


def read_progress(path: Path) -> Progress | None:
    """What such a file has; None where there is none, or a power cut left it unfinished."""
    try:
        value = from_json(path.read_bytes())
        return Progress(
            stage=str(value["stage"]),
            done=int(value["done"]),
            total=int(value["total"]),
            values={str(name): None if one is None else float(one) for name, one in value["values"].items()},
            note=str(value["note"]),
            seconds_left=None if value["seconds_left"] is None else float(value["seconds_left"]),
            at=datetime.fromisoformat(value["at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
