"""The charts of a run that goes on: of metrics.jsonl only what was added is read."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from loraloom.studio.runs.summary import Signature, signature
from registry.errors import BadFile
from train.loop import checkpoint
from train.loop.history import History
from train.loop.trackers import METRICS, metrics_row
from train.run_report.charts import Chart, charts_of, logged_bands
from train.run_report.read import finite_row, read_history

MOST_KEPT = 12  # runs whose rows stay in memory


@dataclass
class Metrics:
    """The rows of one metrics.jsonl so far. A file that was written anew (by a resume) is read anew."""

    path: Path
    file: tuple[int, int] = (0, 0)  # device and inode of what was read
    at: int = 0  # bytes that were read, whole lines
    count: int = 0  # lines
    rows: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> list[dict[str, Any]]:
        """All rows, those that were added since among them; a last line that is not whole yet is left. Raises BadFile."""
        with self.lock:
            try:
                with self.path.open("rb") as file:
                    self._add(file)
            except FileNotFoundError:
                self._forget()
            return list(self.rows)

    def _add(self, file: BinaryIO) -> None:
        stat = os.fstat(file.fileno())
        if self.file != (stat.st_dev, stat.st_ino) or stat.st_size < self.at:
            self._forget()
            self.file = stat.st_dev, stat.st_ino
        file.seek(self.at)
        new = file.read(stat.st_size - self.at)
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self.count += 1
            try:
                self.rows.append(finite_row(metrics_row(line)))
            except ValueError as error:
                number = self.count
                self._forget()
                raise BadFile(self.path, "damaged", f"line {number} is damaged ({error}). Remove that line.") from error
        self.at += len(whole)

    def _forget(self) -> None:
        self.file, self.at, self.count, self.rows = (0, 0), 0, 0, []


_lock = threading.Lock()
_known: OrderedDict[Path, Metrics] = OrderedDict()
_histories: OrderedDict[tuple[Path, Signature], History | None] = OrderedDict()  # by checkpoint


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run folder."""
    with _lock:
        found = _known.pop(folder, None) or Metrics(folder / METRICS)
        _known[folder] = found
        while len(_known) > MOST_KEPT:
            _known.popitem(last=False)
    return found.read()


def run_charts(folder: Path) -> list[Chart]:
    """Every curve that the run has numbers for so far. The style curve is the report's: it compares images."""
    rows = metrics_of(folder)
    history = _history(folder)
    found = charts_of(rows, history, None)
    if history is None and (bands := logged_bands(rows)) is not None:
        place = next((at for at, chart in enumerate(found) if chart.key == "heldout_loss"), -1) + 1
        found.insert(place, bands)
    return found


def _history(folder: Path) -> History | None:
    """The measurements that the newest checkpoint has."""
    places: Mapping[int, Path] = checkpoint.steps_of(folder)
    if not places:
        return None
    newest = places[max(places)], signature(places[max(places)] / checkpoint.STATE)
    with _lock:
        if newest in _histories:
            return _histories[newest]
    found = read_history(places, [])
    with _lock:
        _histories[newest] = found
        while len(_histories) > MOST_KEPT:
            _histories.popitem(last=False)
    return found
