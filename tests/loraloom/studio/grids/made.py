"""Grids' folders as `loraloom grid` leaves them, written by its own writers, without a model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from infer.output.report import write_report
from infer.output.sheet import write_sheet
from tests.infer.images import gallery

AXES = {"prompt": ["a cat", "a dog"], "seed": ["1", "2", "3"]}


def drawn(folder: Path, axes: Mapping[str, Sequence[Any]] = AXES, *, single_file: bool = False, sheet: bool = True, **given: Any) -> Path:
    """A finished grid in this folder."""
    folder.mkdir(parents=True)
    found = gallery(folder / "images", axes, **given)
    write_report(folder / "report.html", found, single_file=single_file)
    if sheet:
        write_sheet(folder / "sheet.png", found)
    names = list(axes)
    lines = [
        {
            "key": one.key,
            "render": {"prompt": one.settings["prompt"]},
            "image": None if one.path is None else one.path.relative_to(folder).as_posix(),
            "status": one.status,
            "seconds": one.seconds,
            "scores": {},
            "axes": {name: axes[name][at] for name, at in zip(names, one.place, strict=True)},
            "error": one.error,
        }
        for one in found.images
    ]
    (folder / "cells.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    failed = sum(one.status == "failed" for one in found.images)
    result = {"cells": len(lines), "rendered": len(lines) - failed, "reused": 0, "failed": failed, "missing": 0, "seconds": 1.5}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    config = {"name": "a grid", "base": "pocket", "axes": {name: list(values) for name, values in axes.items()}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return folder
