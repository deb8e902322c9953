"""Trackers of a run's metrics: metrics.jsonl always; wandb (offline unless WANDB_MODE is set) and tensorboard by setting."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from registry.errors import JobFailed, Refused
from registry.files.write_failure import explained
from registry.formats.atomic_file import write_text
from registry.names import Table, suggest
from registry.plain_values import from_json
from registry.typed_values import is_of
from train.config import TrainConfig, to_plain

METRICS = "metrics.jsonl"
Mode = Literal["online", "offline", "disabled", "shared"]  # of wandb
Row = Mapping[str, Any]  # {"step": int, name: number, ...}


class Tracker(Protocol):
    """Takes rows of numbers, each with its step."""

    def log(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


TRACKERS: Table[Callable[[Path, TrainConfig, int], Tracker]] = Table("tracker")  # (run folder, settings, step it starts after)


def trackers_of(text: str) -> list[str]:
    """The names in `tracker`, joined by +; jsonl is always among them. Raises UnknownName; Refused for one that is not installed."""
    names = list(dict.fromkeys(["jsonl", *(name.strip() for name in text.split("+") if name.strip())]))
    for name in names:
        _ = TRACKERS[name]
    if "tensorboard" in names:
        import importlib.util

        if importlib.util.find_spec("tensorboard") is None:
            raise Refused("tracker=tensorboard needs the package: pip install 'loraloom[tensorboard]', or use tracker=jsonl.")
    if "wandb" in names:
        wandb_mode()
    return names


def wandb_mode() -> Mode:
    """The mode of WANDB_MODE, offline where it is not set. Raises Refused for one that wandb has not."""
    given = os.environ.get("WANDB_MODE") or "offline"
    if given not in get_args(Mode):
        raise Refused(f"WANDB_MODE={given} is no mode of wandb. {suggest(given, get_args(Mode))}")
    return cast("Mode", given)


def open_trackers(folder: Path, config: TrainConfig, *, after: int) -> list[Tracker]:
    """The run's trackers; rows of steps later than `after` are dropped, the resume writes them again."""
    return [TRACKERS[name](folder, config, after) for name in trackers_of(config.tracker)]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line cut off by a kill is left out. Raises JobFailed for another that is none."""
    try:
        lines = (folder / METRICS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(metrics_row(line))
        except ValueError as error:
            if number != len(lines) - 1:
                raise JobFailed(f"{folder / METRICS}, line {number + 1}, is damaged ({error}). Remove that line, and resume.") from error
    return rows


def metrics_row(line: bytes) -> dict[str, Any]:
    """One line of metrics.jsonl. Raises ValueError for one that is no row of numbers with a step."""
    row = from_json(line)
    if not (isinstance(row, dict) and is_of(row.get("step"), int) and is_of([*row.values()], list[float])):
        raise ValueError("it is no row of numbers with a step")
    return row


@TRACKERS.add("jsonl")
class JsonLines:
    """metrics.jsonl: one JSON object a line."""

    def __init__(self, folder: Path, config: TrainConfig, after: int) -> None:
        kept = _rows_until(folder, after)
        write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = folder / METRICS
        self._file = self._path.open("a", encoding="utf-8")

    def log(self, rows: Sequence[Row]) -> None:
        text = "".join(json.dumps(dict(row), allow_nan=False) + "\n" for row in rows)
        with explained(self._path):
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        with explained(self._path):
            self._file.close()


@TRACKERS.add("tensorboard")
class TensorBoard:
    """Event files in tensorboard/ of the run folder."""

    def __init__(self, folder: Path, config: TrainConfig, after: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder / "tensorboard"
        earlier = any(place.glob("events.*"))
        self._writer: Any = SummaryWriter(str(place), purge_step=after + 1 if after and earlier else None)
        if not earlier:
            self.log(_rows_until(folder, after))  # of the steps before it was chosen

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in _numbers(row).items():
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


@TRACKERS.add("wandb")
class WandB:
    """A wandb run in the run folder: offline unless WANDB_MODE is set; `wandb sync` sends it later.

    Offline, a resume begins a new file that holds every row from the first on, in place of the one before: of two files of one run
    that overlap, a sync would send both. Online, the server has the rows; those that come again it drops.
    """

    def __init__(self, folder: Path, config: TrainConfig, after: int) -> None:
        import hashlib

        import wandb

        mode = wandb_mode()
        if mode == "offline":
            _replace_offline_runs(folder)
        identity = hashlib.sha256(str(folder).encode()).hexdigest()[:16]  # a resume goes on with the same run
        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "loraloom"),
                name=f"{config.name} {folder.name}",
                id=identity,
                resume="allow",
                dir=str(folder),
                mode=mode,
                config=to_plain(config),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:  # no key, no such project, no network
            reason = str(error).strip().partition("\n")[0]
            raise JobFailed(
                f"wandb cannot start ({reason}). Log in with wandb login, or unset WANDB_MODE: the run is then kept offline."
            ) from error
        if mode == "offline":
            self.log(_rows_until(folder, after))

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log(_numbers(row), step=row["step"])

    def close(self) -> None:
        self._run.finish()


def _rows_until(folder: Path, after: int) -> list[dict[str, Any]]:
    """The rows that a resume keeps."""
    return [row for row in read_metrics(folder) if row["step"] <= after and after > 0]


def _replace_offline_runs(folder: Path) -> None:
    """Give wandb's earlier offline files of this run a name under which no sync finds them."""
    for file in (folder / "wandb").glob("offline-run-*/*.wandb"):
        file.rename(file.with_suffix(".wandb.replaced"))


def _numbers(row: Row) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "step" and isinstance(value, (int, float))}
