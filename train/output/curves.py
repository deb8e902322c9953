"""curves.png: the training loss, the held-out loss against the base's own, the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from registry.formats.atomic_file import atomic_file
from registry.launch.importing import importing

INK, LINE, BASE = "#1d3557", "#a8b8cc", "#c1440e"


def smoothed(values: Sequence[float], *, weight: float = 0.95) -> list[float]:
    """Exponential mean, corrected for its start (Kingma & Ba 2015, section 3)."""
    out, mean = [], 0.0
    for count, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**count))
    return out


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str, label: str = "with the LoRA") -> None:
    """Draw the rows of metrics.jsonl into a PNG."""
    with importing():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.13, top=0.83, wspace=0.33)  # a computed layout draws everything twice
    _training(left, [row for row in rows if {"loss", "lr"} <= row.keys()])
    _heldout(right, rows, label)
    figure.suptitle(title)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    with atomic_file(path, needed=len(buffer.getvalue())) as file:
        file.write(buffer.getvalue())


def _training(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    axes.plot(steps, losses, color=LINE, linewidth=0.8, label="each step")
    axes.plot(steps, smoothed(losses), color=INK, linewidth=1.8, label="smoothed")
    axes.set(xlabel="step", ylabel="loss", title="training loss")
    axes.legend(frameon=False)
    rate = axes.twinx()
    rate.plot(steps, [row["lr"] for row in rows], color=BASE, linewidth=0.8, linestyle=":")
    rate.set_ylabel("learning rate", color=BASE)
    rate.set_ylim(bottom=0)


def _heldout(axes: Any, rows: Sequence[Mapping[str, Any]], label: str) -> None:
    axes.set(xlabel="step", ylabel="loss", title="held-out loss (lower is better)")
    measured = [row for row in rows if "heldout" in row]
    base = next((row["heldout_base"] for row in rows if "heldout_base" in row), None)
    if base is None:
        axes.text(0.5, 0.5, "no held-out pairs", ha="center", va="center", transform=axes.transAxes)
        return
    axes.axhline(base, color=BASE, linewidth=1.2, label="base")
    steps, values = [0, *(row["step"] for row in measured)], [base, *(row["heldout"] for row in measured)]
    axes.plot(steps, values, color=INK, marker="o", markersize=3, label=label)
    spans = [row for row in measured if {"heldout_difference_low", "heldout_difference_high"} <= row.keys()]
    if spans:
        low, high = ([base + row[f"heldout_difference_{end}"] for row in spans] for end in ("low", "high"))
        axes.fill_between(
            [row["step"] for row in spans], low, high, color=INK, alpha=0.15, linewidth=0, label="95 % interval of the difference"
        )
    axes.legend(frameon=False)
