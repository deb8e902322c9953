"""curves.png: the training loss, the held-out loss against the base's own, the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from registry.formats.atomic_file import atomic_file
from train.output.plot import Chart, Line, Picture, Points, Scale, span_of

INK, LINE, BASE, BAND = "#1d3557", "#a8b8cc", "#c1440e", "#dde1e6"  # a band is the ink at 15 %
SIZE = (1210, 440)
LARGEST = 1e100  # of a number that has a place: differences and squares of larger ones overflow
LEFT, RIGHT = (80, 58, 545, 388), (733, 58, 1198, 388)  # the two frames


def smoothed(values: Sequence[float], *, weight: float = 0.95) -> list[float]:
    """Exponential mean, corrected for its start (Kingma & Ba 2015, section 3)."""
    out, mean = [], 0.0
    for count, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**count))
    return out


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str, label: str = "with the LoRA") -> None:
    """Draw the rows of metrics.jsonl into a PNG."""
    charts = [_training([row for row in rows if {"loss", "lr"} <= row.keys()]), _heldout(rows, label)]
    buffer = BytesIO()
    Picture(SIZE, title, charts).drawn().save(buffer, format="PNG")
    with atomic_file(path, needed=len(buffer.getvalue())) as file:
        file.write(buffer.getvalue())


def _training(rows: Sequence[Mapping[str, Any]]) -> Chart:
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    each, rates = _points(steps, losses), _points(steps, [row["lr"] for row in rows])
    return Chart(
        box=LEFT,
        title="training loss",
        across=_steps(each),
        up=Scale(label="loss", span=span_of([loss for _, loss in each])),
        lines=[
            Line(name="each step", points=each, colour=LINE),
            Line(name="smoothed", points=_points(steps, smoothed(losses)), colour=INK, width=2.6),
        ],
        right=Scale(label="learning rate", span=span_of([rate for _, rate in rates], least=0.0), colour=BASE),
        beside=[Line(points=rates, colour=BASE, dotted=True)],
    )


def _heldout(rows: Sequence[Mapping[str, Any]], label: str) -> Chart:
    title = "held-out loss (lower is better)"
    measured = [row for row in rows if "heldout" in row]
    base = next((row["heldout_base"] for row in rows if "heldout_base" in row), None)
    if base is None or not _has_place(base):
        note = "no held-out pairs" if base is None else f"the base's held-out loss is {base:g}"
        return Chart(box=RIGHT, title=title, across=_steps([]), up=Scale(label="loss", span=(0.0, 1.0)), note=note)
    curve = _points([0, *(row["step"] for row in measured)], [base, *(row["heldout"] for row in measured)])
    across = _steps(curve)
    lines = [
        Line(name="base", points=[(end, base) for end in across.span], colour=BASE, width=1.8),
        Line(name=label, points=curve, colour=INK, width=1.8, marks=True),
    ]
    ends = ("heldout_difference_low", "heldout_difference_high")
    spans = [row for row in measured if all(end in row and _has_place(base + row[end]) for end in ends)]
    if spans:
        low, high = ([(row["step"], base + row[end]) for row in spans] for end in ends)
        lines.append(Line(name="95 % interval of the difference", points=low, until=high, colour=BAND))
    values = [value for line in lines for border in (line.points, line.until) for _, value in border]
    return Chart(box=RIGHT, title=title, across=across, up=Scale(label="loss", span=span_of(values)), lines=lines)


def _steps(points: Points) -> Scale:
    return Scale(label="step", span=span_of([step for step, _ in points]), whole=True)


def _points(steps: Sequence[float], values: Sequence[float]) -> Points:
    """Step and value of every step whose value has a place."""
    return [(step, value) for step, value in zip(steps, values, strict=True) if _has_place(value)]


def _has_place(value: float) -> bool:
    return abs(value) <= LARGEST  # False for NaN
