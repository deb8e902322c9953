"""What a row of the list says of a run: read from the small files of its folder, and again only when they have changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from registry.plain_values import from_json
from registry.typed_values import is_of
from train.loop.trackers import METRICS, metrics_row
from train.output.folder import PLAN, RESULT

ROOM = 16 << 20  # bytes of a plan or a result that are read for a row
TAIL = 1 << 14  # bytes at the end of metrics.jsonl that hold its last rows

Signature = tuple[int, int]  # size and time of change; (-1, -1) where there is none


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A run in a few values; None: it is not known."""

    base: str | None = None
    kind: str | None = None  # of the adapter: lora, lokr, ...
    rank: int | None = None
    images: int | None = None
    steps: int | None = None
    step: int = 0
    loss: float | None = None  # of the last step that was logged
    heldout_base: float | None = None
    heldout_best: float | None = None
    adapter: str | None = None
    seconds: float | None = None
    damaged: str | None = None  # the file that cannot be read, and why


def signature(path: Path) -> Signature:
    """What changes when a file is written."""
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):
        return -1, -1  # a named pipe is not read
    return stat.st_size, stat.st_mtime_ns


def summary_of(folder: Path) -> Summary:
    """The summary of a run folder."""
    return _read(folder, *(signature(folder / name) for name in (PLAN, RESULT, METRICS)))


@lru_cache(maxsize=4096)
def _read(folder: Path, plan_at: Signature, result_at: Signature, _metrics_at: Signature) -> Summary:
    problems: list[str] = []
    plan, result = _object(folder / PLAN, plan_at, problems), _object(folder / RESULT, result_at, problems)
    config, heldout = _inside(plan, "config"), _inside(result, "heldout")
    rows = last_rows(folder / METRICS)
    measured = [row["heldout"] for row in rows if "heldout" in row]
    losses = [row["loss"] for row in rows if "loss" in row]
    lora = _inside(config, "lora")
    return Summary(
        base=_text(config.get("base")),
        kind=_text(lora.get("kind")),
        rank=_whole(lora.get("rank")),
        images=_whole(plan.get("pictures")),
        steps=_whole(config.get("steps")),
        step=max([_whole(result.get("steps")) or 0, *(row["step"] for row in rows)]),
        loss=losses[-1] if losses else None,
        heldout_base=_number(heldout.get("base")),
        heldout_best=_number(heldout.get("best")) if heldout else measured[-1] if measured else None,
        adapter=_text(result.get("adapter")),
        seconds=_number(result.get("seconds")),
        damaged="; ".join(problems) or None,
    )


def last_rows(path: Path) -> list[dict[str, Any]]:
    """The last rows of metrics.jsonl; what is no row (one that is being written) is left out."""
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read(TAIL).splitlines()[1 if size > TAIL else 0 :]
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(metrics_row(line))
        except ValueError:
            continue
    return rows


def _object(path: Path, at: Signature, problems: list[str]) -> Mapping[str, Any]:
    if at[0] < 0:
        return {}
    try:
        value = from_json(path.read_bytes()) if at[0] <= ROOM else None
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read ({error})")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} is not what a run writes")
        return {}
    return value


def _inside(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    return value if is_of(value, int) and isinstance(value, int) else None


def _number(value: object) -> float | None:
    return float(value) if is_of(value, float) and isinstance(value, (int, float)) else None
