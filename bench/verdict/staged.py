"""Runs on pocket and the ink set, staged to come to a known end, and the kind that loraloom gives them.

python -m bench.verdict.staged OUT 5      5 seeds of each of the six kinds; finished ones are not run again

OUT gets a home, the runs, and table.md: one row a kind, with how many seeds were judged rightly.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

INK = Path(__file__).parents[2] / "datasets" / "ink"
PREVIEW_STEPS = 12


def whole(place: Path) -> Path:
    """The set as it is."""
    return place if place.exists() else Path(shutil.copytree(INK, place))


def few(place: Path) -> Path:
    """Ten of its pairs."""
    if not place.exists():
        shutil.copytree(INK, place)
        for image in sorted(place.glob("*.png"))[10:]:
            image.unlink()
            image.with_suffix(".txt").unlink()
    return place


def shuffled(place: Path) -> Path:
    """Each image with the caption of the image seven places on; the held-out pairs stay right."""
    if not place.exists():
        shutil.copytree(INK, place)
        files = sorted(place.glob("*.txt"))
        texts = [file.read_text(encoding="utf-8") for file in files]
        for file, text in zip(files, texts[7:] + texts[:7], strict=True):
            file.write_text(text, encoding="utf-8")
    return place


STAGED: dict[str, tuple[Callable[[Path], Path], dict[str, Any], tuple[str, ...]]] = {
    "good": (whole, {"steps": 200, "optim.lr": 2e-3}, ("done",)),
    "too few steps": (whole, {"steps": 30, "optim.lr": 5e-4, "schedule.name": "constant"}, ("unfinished",)),
    "rate too high": (whole, {"steps": 60, "optim.lr": 0.1, "schedule.name": "constant"}, ("rate_too_high",)),
    "dead targets": (whole, {"steps": 60, "lora.targets": "/.*attn2.to_k/", "optim.lr": 1e-6}, ("nothing_learned",)),
    "shuffled captions": (shuffled, {"steps": 150, "optim.lr": 2e-3}, ("captions",)),
    "over-fitted": (few, {"steps": 400, "optim.lr": 3e-3, "schedule.name": "constant"}, ("over_fitted", "not_better")),
}


def main(out: Path, seeds: int) -> None:
    """Run what is missing, and write the table."""
    os.environ["LORALOOM_HOME"] = str(out / "home")
    rows = []
    for seed in range(seeds):
        for name in STAGED:
            rows.append((name, seed, result_of(out, name, seed)))
            (out / "table.md").write_text(table(rows), encoding="utf-8")


def result_of(out: Path, name: str, seed: int) -> dict[str, Any]:
    """result.json of a staged run."""
    from train.config import TrainConfig, changed
    from train.run import train_lora

    data, settings, _ = STAGED[name]
    key = f"{name.replace(' ', '-')}-{seed}"
    kept = list((out / "runs" / key).glob("*/result.json"))
    if kept:
        found: dict[str, Any] = json.loads(kept[0].read_text(encoding="utf-8"))
        return found
    path = data(out / f"set-{data.__name__}")
    common = {"name": key, "data.path": str(path), "seed": seed, "batch_size": 4, "preview.steps": PREVIEW_STEPS, "out": str(out / "runs")}
    every = settings["steps"] // (5 if settings["steps"] > 100 else 3)
    config = changed(TrainConfig(), {**common, "device": "cpu", "heldout.every": every, **settings})
    return dict(train_lora(config).result)


def table(rows: list[tuple[str, int, dict[str, Any]]]) -> str:
    """One row a kind, then every sentence."""
    lines = ["| staged | judged rightly | kinds given |", "|---|---|---|"]
    for name, (_, _, wanted) in STAGED.items():
        kinds = [row["verdict"]["kind"] for kind, _, row in rows if kind == name]
        lines.append(f"| {name} | {sum(kind in wanted for kind in kinds)} of {len(kinds)} | {', '.join(kinds)} |")
    return "\n".join([*lines, "", *(f"- {name}, seed {seed}: {row['verdict']['sentence']}" for name, seed, row in rows)]) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]))
