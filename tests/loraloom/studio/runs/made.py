"""Run folders as a training leaves them, written by the house's own writers: no model is loaded."""

import math
from pathlib import Path
from typing import Any

from PIL import Image

from registry.formats.atomic_file import write_json, write_text
from train.config import TrainConfig, changed, to_plain, to_yaml
from train.loop.preview import sample_name
from train.loop.trackers import METRICS, JsonLines
from train.output.folder import CONFIG, INPUTS, PLAN, RESULT

PROMPTS = ["a bell", "a dog"]


def rows_of(first: int, last: int, *, scale: float = 1.0) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of the steps first to last, measured every 10 steps; of the base where they begin at 1."""
    rows: list[dict[str, Any]] = []
    bands = {"heldout_low": 0.3, "heldout_middle": 1.2, "heldout_high": 1.5}
    if first == 1:
        rows.append({"step": 0, "heldout_base": 0.9, **bands, "heldout_trained": 0.8})
    for step in range(first, last + 1):
        loss = scale * (0.5 + 0.5 * math.exp(-step / 20) + 0.05 * math.sin(step * 7))
        rows.append({"step": step, "loss": loss, "lr": 1e-4, "gradient_norm": 0.1})
        if step % 10 == 0:
            shares = {name: value * (1 - step / 100) for name, value in bands.items()}
            difference = {"heldout_difference": -0.1, "heldout_difference_low": -0.15, "heldout_difference_high": -0.05}
            rows.append({"step": step, "heldout": 0.9 - step / 200, **difference, **shares})
    return rows


def make_run(
    root: Path, name: str = "ink", stamp: str = "20260101-120000", *, done: int = 40, finished: bool = True, **settings: Any
) -> Path:
    """`<root>/runs/<name>/<stamp>/` of 40 steps, of which `done` were made; settings with `__` for a dot."""
    folder = root / "runs" / name / stamp
    (folder / "samples").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    given = {key.replace("__", "."): value for key, value in settings.items()}
    config = changed(TrainConfig(), {"name": name, "steps": 40, "preview.prompts": PROMPTS, "data.path": "datasets/ink", **given})
    write_text(folder / CONFIG, to_yaml(config))
    write_json(folder / INPUTS, {"base": {"name": "pocket"}, "dataset": {"files": []}, "heldout": []})
    write_json(folder / PLAN, {"config": to_plain(config), "pictures": 12, "text": f"run        {name}\nsteps      40"})
    JsonLines(folder, config, 0).log(rows_of(1, done))
    for step in (0, 20, 40)[: 1 + done // 20]:
        for number in (1, 2):
            Image.new("RGB", (48, 48), (step * 5, 90 * number, 120)).save(folder / "samples" / sample_name(step, number))
    if finished:
        write_json(
            folder / RESULT,
            {"adapter": name, "steps": done, "seconds": 12.5, "heldout": {"base": 0.9, "final": 0.7, "best": 0.7}, "sentences": ["done"]},
        )
    return folder


def add_rows(folder: Path, first: int, last: int) -> None:
    """More steps of a run that goes on."""
    import json

    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows_of(first, last))
