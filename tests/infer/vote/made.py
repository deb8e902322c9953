"""Grids made for votes: real PNGs and a cells.jsonl as `loraloom grid` writes it, without a model; and votes with a known outcome."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from infer.vote.votes import Vote
from registry.printable import one_line

AT = "2026-01-31T12:00:00+00:00"


def made_grid(
    folder: Path,
    axes: Mapping[str, Sequence[Any]],
    *,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    size: int = 8,
) -> Path:
    """A folder with a cell for each combination, under `key_of` its values. `scores`: of a cell, by its key."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    (folder / "images").mkdir(parents=True)
    lines = []
    for number, place in enumerate(product(*axes.values())):
        values = dict(zip(axes, place, strict=True))
        key = key_of(*place)
        text = PngInfo()
        text.add_text("parameters", f"SECRET {key}")
        text.add_itxt("loraloom", json.dumps({"key": key}))
        Image.new("RGB", (size, size), (number % 256, number // 256, 90)).save(folder / "images" / f"{number}.png", pnginfo=text)
        entry = {"key": key, "render": {"adapters": []}, "image": f"images/{number}.png", "status": "rendered", "seconds": 1.0}
        lines.append(json.dumps({**entry, "scores": (scores or {}).get(key, {}), "axes": values, "error": None}))
    (folder / "cells.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def key_of(*values: object) -> str:
    """The key of a cell: its values joined, each short and on one line."""
    return "|".join(one_line(value)[:30] for value in values)


def chromium() -> str:
    """The path of the browser of the browser tier."""
    program = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "The browser tier needs chromium: install it, or name it in LORALOOM_CHROMIUM."
    return program


def vote(identity: object, left: str, right: str, choice: str, *, voter: str = "anna", seconds: float = 2.0) -> Vote:
    return Vote(id=str(identity), left=left, right=right, choice=choice, voter=voter, seconds=seconds, at=AT)


def write_votes(path: Path, votes: Iterable[Vote]) -> Path:
    path.write_text("".join(one.to_line() for one in votes), encoding="utf-8")
    return path
