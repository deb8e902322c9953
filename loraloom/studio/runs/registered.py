"""The runs of the index: also those whose folders are not on this machine, where the index is shared."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from loraloom.studio.runs.summary import Summary
from registry.errors import LoomError

if TYPE_CHECKING:
    from loraloom.studio.context import Studio
    from registry.record import Record

SECONDS = 5.0  # after which the index is asked again: it may be on another machine


@dataclass(frozen=True, kw_only=True)
class RegisteredRun:
    """A run of the index."""

    reference: str
    path: Path
    stamp: str
    summary: Summary


@dataclass(frozen=True)
class Registered:
    """The runs of the index as they were last read. `trouble`: why it cannot be read, and what to do; then there are none."""

    runs: tuple[RegisteredRun, ...]
    trouble: str | None
    at: float  # by the monotonic clock


_lock = threading.Lock()
_known: dict[Path, Registered] = {}  # by home


def registered_runs(studio: Studio) -> tuple[RegisteredRun, ...]:
    """The runs of the index, at most SECONDS old; none where it cannot be read."""
    return _registered(studio).runs


def index_trouble(studio: Studio, *, known: bool = False) -> str | None:
    """Why the index cannot be read, and what to do; None where it was read.

    `known`: it is asked again, after SECONDS, only where it could not be read the last time.
    """
    with _lock:
        last = _known.get(studio.home)
    if known and (last is None or last.trouble is None):
        return None
    return _registered(studio).trouble


def _registered(studio: Studio) -> Registered:
    with _lock:
        known = _known.get(studio.home)
        if known is not None and time.monotonic() - known.at < SECONDS:
            return known
        found = _known[studio.home] = _read(studio)
        return found


def _read(studio: Studio) -> Registered:
    try:
        with studio.store.listing(kind="run") as found:
            runs = tuple(run for record in found if (run := _run_of(record)) is not None)
    except LoomError as error:
        return Registered((), str(error), time.monotonic())
    return Registered(runs, None, time.monotonic())


def forget(studio: Studio) -> None:
    """Ask the index again the next time."""
    with _lock:
        _known.pop(studio.home, None)


def _run_of(record: Record) -> RegisteredRun | None:
    if record.path is None:
        return None
    recipe = record.recipe or {}
    lora = recipe.get("lora")
    base = next((str(parent["ref"]) for parent in record.parents if parent.get("role") == "base" and parent.get("ref")), None)
    summary = Summary(
        base=base,
        kind=str(lora["kind"]) if isinstance(lora, dict) and "kind" in lora else None,
        rank=lora["rank"] if isinstance(lora, dict) and isinstance(lora.get("rank"), int) else None,
        steps=recipe["steps"] if isinstance(recipe.get("steps"), int) else None,
    )
    return RegisteredRun(reference=record.name, path=Path(record.path), stamp=_stamp(record), summary=summary)


def _stamp(record: Record) -> str:
    """When it was begun, as run folders are called; when it was registered, where its folder has another name."""
    name = Path(record.path or "").name
    if len(name) >= 15 and name[:8].isdigit() and name[8] == "-":
        return name
    try:
        return datetime.fromisoformat(record.created or "").astimezone(UTC).strftime("%Y%m%d-%H%M%S")
    except ValueError:
        return ""
