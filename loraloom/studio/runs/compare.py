"""Runs side by side: their curves over one another, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loraloom.studio.runs.curves import run_charts
from loraloom.studio.runs.folders import run_folder
from loraloom.studio.runs.summary import summary_of
from registry.errors import Refused
from registry.settings import spelled_inside
from train.config import dotted_names, get
from train.output.folder import read_config
from train.run_report.charts import Chart, Line
from train.run_report.settings import LEFT_OUT

FEWEST, MOST = 2, 6
SHARED = ("training_loss", "heldout_loss", "heldout_generic", "prompt_share", "delta_norm", "gradient_norm", "learning_rate")
ABOUT = {
    "training_loss": "Smoothed, with the 95 % interval. It compares runs of the same images and the same loss alone.",
    "heldout_loss": "It compares runs of the same held-out images alone: these are measured at the same timesteps and noise each time.",
}


def compared(folders: Sequence[Path]) -> dict[str, Any]:
    """Charts with a line a run, and a row for each setting that is not the same in all. Raises Refused for too few or too many."""
    if not FEWEST <= len(folders) <= MOST or len({*folders}) != len(folders):
        raise Refused(f"Choose {FEWEST} to {MOST} different runs to compare; {len(folders)} were given.")
    names = _names(folders)
    charts = [{chart.key: chart for chart in run_charts(folder)} for folder in folders]
    found = []
    for key in SHARED:
        lines = [replace(_main(chart[key]), name=name) for name, chart in zip(names, charts, strict=True) if key in chart]
        if len(lines) > 1:
            first = next(chart[key] for chart in charts if key in chart)
            found.append(Chart(key=key, title=first.title, about=ABOUT.get(key, first.about), lines=tuple(lines)))
    configs = [read_config(folder) for folder in folders]
    rows = [(name, [_spelled(get(config, name)) for config in configs]) for name in dotted_names() if name not in LEFT_OUT]
    return {
        "runs": [
            {"path": str(folder), "label": name, "summary": vars(summary_of(folder))} for folder, name in zip(folders, names, strict=True)
        ],
        "charts": [chart.to_json() for chart in found],
        "settings": [{"name": name, "values": values} for name, values in rows if len({*values}) > 1],
    }


def _main(chart: Chart) -> Line:
    """The line of a chart that stands for the run."""
    return chart.lines[0]


def _names(folders: Sequence[Path]) -> list[str]:
    """The runs' names, with their stamps where several have one name."""
    runs = [run_folder(folder) for folder in folders]
    twice = {run.name for run in runs if sum(other.name == run.name for other in runs) > 1}
    return [f"{run.name} {run.stamp}" if run.name in twice else run.name for run in runs]


def _spelled(value: Any) -> str:
    value = getattr(value, "name", value)
    return value if isinstance(value, str) else spelled_inside(list(value) if isinstance(value, tuple) else value)
