"""The run folder `<out>/<name>/<stamp>/`: created atomically with its settings, found by a resume, locked by one process at a time."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.errors import JobFailed, NotFound, Refused, WriteFailed
from registry.files.locks import locked, take
from registry.files.write_failure import explained
from registry.formats.atomic_file import sync_folder, write_json, write_text
from registry.home import expanded
from registry.names import suggest
from registry.plain_values import from_json, from_yaml
from train.config import TrainConfig, changed, read_yaml, to_yaml

CONFIG = "config.yaml"
INPUTS = "inputs.json"  # base and data with their hashes, and every resume
RESULT = "result.json"
PLAN = "plan.json"  # what the run was to do, as values and in words
UNFINISHED = ".tmp-"
SECONDS_OF_A_LOOK = 0.2  # `in_use` has the lock for a moment, and whoever shows a run looks again and again


def make_folder(config: TrainConfig, name: str, inputs: Mapping[str, Any]) -> Path:
    """A new run folder with config.yaml and inputs.json in it, created atomically. Two in one second do not collide."""
    parent = expanded(config.out).absolute() / name
    made = parent / f"{UNFINISHED}{secrets.token_hex(8)}"
    with explained(parent):
        parent.mkdir(parents=True, exist_ok=True)
        made.mkdir()
    try:
        write_text(made / CONFIG, to_yaml(config))
        write_json(made / INPUTS, inputs)
        (made / "checkpoints").mkdir()
        (made / "samples").mkdir()
        final = _place(made, parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    sync_folder(parent)
    return final


def _place(made: Path, parent: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        final = parent / (stamp if number == 1 else f"{stamp}-{number}")
        if final.exists():
            continue
        try:
            with explained(final):
                os.rename(made, final)  # fails on a folder with something in it, which every run folder has
        except WriteFailed:
            if final.exists():
                continue
            raise
        return final
    raise JobFailed(f"No free name for a run folder in {parent}.")


def find_folder(resume: str, *, out: str, name: str | None, setting: str = "resume=") -> Path:
    """The run folder of `resume=`: a path, or `latest` for the newest run of that name (of any name when none is given).

    `setting` is what stands before it where it is given, "" for a command's own word.
    """
    if resume != "latest":
        folder = expanded(resume).absolute()
        if (folder / CONFIG).is_file():
            return folder
        if not folder.is_dir():
            raise NotFound(f"{setting}{resume}: there is no such folder. Give a run folder (it holds {CONFIG}), or latest.")
        raise Refused(f"{setting}{resume}: this is not a run folder, it has no {CONFIG}. Give one of {out}/<name>/<stamp>.")
    root = expanded(out).absolute()
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if name is not None and name not in names:
        raise NotFound(f"{setting}latest: there are no runs named {name!r} in {root}. {suggest(name, names)}")
    runs = [run for each in ([name] if name else names) for run in (root / each).iterdir() if is_run(run)]
    if not runs:
        raise NotFound(f"{setting}latest: there are no runs in {root}. Give the run folder itself{', or `out`' if setting else ''}.")
    return max(runs, key=_age)


def is_run(folder: Path) -> bool:
    """Whether this is a training's folder; one of a grid or a merge has settings, and no inputs of a training."""
    return not folder.name.startswith(".") and (folder / CONFIG).is_file() and (folder / INPUTS).is_file()


def _age(folder: Path) -> tuple[str, int]:
    """The stamp, and the number of several in one second."""
    number = folder.name[15:].rpartition("-")[2]
    return folder.name[:15], int(number) if number.isdigit() else 1


def read_config(folder: Path) -> TrainConfig:
    """The run's own settings; those of a run from before aspect-ratio buckets crop squares, as it did."""
    config = read_yaml(folder / CONFIG)
    written = from_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    if config.data.buckets and "buckets" not in (written.get("data") or {}):
        return changed(config, {"data.buckets": False})
    return config


def read_json_if_there(path: Path) -> dict[str, Any] | None:
    """The object in a file, None when there is no such file."""
    try:
        value = from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise JobFailed(f"{path} is damaged: {error}.") from error
    if not isinstance(value, dict):
        raise JobFailed(f"{path} is damaged: a JSON object was expected.")
    return value


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock the folder for this process; a second one is refused. The system releases the lock when the process ends."""
    until = time.monotonic() + SECONDS_OF_A_LOOK
    while True:
        with locked(folder / ".lock", wait=False) as granted:
            if granted:
                yield
                return
        if time.monotonic() > until:
            raise Refused(f"{folder} is in use by another process that trains in it. Wait for it, or stop it first.")
        time.sleep(0.02)


def in_use_beside(folder: Path) -> list[Path]:
    """The other run folders of its name that a process trains in now."""
    return [run for run in sorted(folder.parent.iterdir()) if run != folder and in_use(run)]


def in_use(folder: Path) -> bool:
    """Whether a process trains in the folder; its lock is not made where there is none."""
    try:
        with (folder / ".lock").open() as file:
            return take(file.fileno(), shared=True) is False
    except OSError:
        return False


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left."""
    for place in (folder, folder / "checkpoints", folder / "samples"):
        for entry in place.glob(f"{UNFINISHED}*") if place.is_dir() else ():
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
