"""The curves of a run as plain values: each a chart with its lines, their intervals, and the levels that they are held against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from train.loop.history import History, prompt_share
from train.loop.probes import BANDS
from train.loop.validation import difference
from train.output.style import StyleCurve

WEIGHT = 0.95  # of the mean so far in the smoothed training loss
NORMAL = 1.96  # standard errors of a 95 % interval
MOST = 600  # points of a line; a longer run shows so many of its steps, evenly
OWN = {"step", "loss", "lr", "heldout", "heldout_base", "heldout_difference", "heldout_difference_low", "heldout_difference_high"}
OWN |= {"heldout_low", "heldout_middle", "heldout_high", "heldout_trained", "prompt_share"}

Point = tuple[float, float, float | None, float | None]  # step, value, low and high end of its 95 % interval


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart; `level`: a constant that the others are compared with."""

    name: str
    points: tuple[Point, ...]
    level: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "level": self.level, "points": [list(point) for point in self.points]}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over the steps. `key` is stable, `about` says how to read it."""

    key: str
    title: str
    about: str
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "title": self.title, "about": self.about, "lines": [line.to_json() for line in self.lines]}


def charts_of(metrics: Sequence[Mapping[str, Any]], history: History | None, style: StyleCurve | None) -> list[Chart]:
    """Every curve that a run has numbers for, in the order of a page."""
    found = [_training(metrics), _heldout(metrics), *_measured(history), _style(style), *_others(metrics), _rate(metrics)]
    return [chart for chart in found if chart is not None]


def smoothed(values: Sequence[float], *, weight: float = WEIGHT) -> list[tuple[float, float, float]]:
    """(mean, low, high): the exponential mean corrected for its start (Kingma & Ba 2015, section 3), and its 95 % interval.

    The interval takes the steps' losses as independent: the weighted variance around the mean, times the sum of the squared weights.
    """
    out = []
    mean = square = total = squares = 0.0  # weighted sums of the values, of their squares, of the weights and of their squares
    for value in values:
        mean, square = weight * mean + (1 - weight) * value, weight * square + (1 - weight) * value * value
        total, squares = weight * total + (1 - weight), weight * weight * squares + (1 - weight) ** 2
        centre, share = mean / total, squares / total**2
        spread = max(0.0, square / total - centre * centre) / (1 - share) if share < 1 else 0.0
        reach = NORMAL * math.sqrt(spread * share)
        out.append((centre, centre - reach, centre + reach))
    return out


def thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most MOST of the points, the first and the last among them."""
    if len(points) <= MOST:
        return tuple(points)
    return tuple(points[round(place * (len(points) - 1) / (MOST - 1))] for place in range(MOST))


def extremes(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most MOST of the points: the lowest and the highest of each of MOST / 2 stretches of equal length, in order.

    A peak of one step stays, which `thinned` may leave out: for what is no mean.
    """
    if len(points) <= MOST:
        return tuple(points)
    kept: list[Point] = []
    ends = [round(place * len(points) * 2 / MOST) for place in range(MOST // 2 + 1)]
    for begin, end in itertools.pairwise(ends):
        places = range(begin, end)
        low, high = min(places, key=lambda at: points[at][1]), max(places, key=lambda at: points[at][1])
        kept += [points[at] for at in sorted({low, high})]
    return tuple(kept)


def _training(metrics: Sequence[Mapping[str, Any]]) -> Chart | None:
    rows = [row for row in metrics if "loss" in row]
    if not rows:
        return None
    means = smoothed([row["loss"] for row in rows])
    points = [(float(row["step"]), *mean) for row, mean in zip(rows, means, strict=True)]
    each = [(float(row["step"]), float(row["loss"]), None, None) for row in rows]
    about = "Each step has other images, timesteps and noise: only the smoothed line can be read, within its 95 % interval."
    lines = (Line(name="smoothed", points=thinned(points)), Line(name="each step", points=extremes(each)))
    return Chart(key="training_loss", title="Training loss", about=about, lines=lines)


def _heldout(metrics: Sequence[Mapping[str, Any]]) -> Chart | None:
    measured = [row for row in metrics if "heldout" in row]
    base = next((float(row["heldout_base"]) for row in metrics if "heldout_base" in row), None)
    if base is None or not measured:
        return None
    points: list[Point] = [(0.0, base, None, None)]
    for row in measured:
        ends = [row.get(f"heldout_difference_{end}") for end in ("low", "high")]
        low, high = (None if end is None else base + float(end) for end in ends)
        points.append((float(row["step"]), float(row["heldout"]), low, high))
    about = "The same images, timesteps and noise each time. The band is the 95 % interval of the difference to the base, paired by image."
    lines = [Line(name="held-out images", points=tuple(points))]
    if trained := [(float(row["step"]), float(row["heldout_trained"]), None, None) for row in metrics if "heldout_trained" in row]:
        lines.append(Line(name="training images at the same points", points=tuple(trained)))
    return Chart(key="heldout_loss", title="Held-out loss", about=about, lines=(*lines, _level("base", base, points)))


def _measured(history: History | None) -> Iterator[Chart]:
    """By timestep band, and the prompt's share; runs from before these were measured have neither."""
    if history is None or not history.before.get("bands"):
        return
    rows = [row for row in history.heldout if row.get("bands")]
    if rows:
        yield _bands(history.before["bands"], [(row["step"], row["bands"]) for row in rows])
    shares = [row for row in rows if row.get("others")]
    if shares and history.before.get("others"):
        shown: list[Point] = []
        for row in [{"step": 0, **history.before}, *shares]:
            found = difference(row["others"], row["own"])
            shown.append((float(row["step"]), found.mean, found.low, found.high))
        about = "Loss with another image's caption minus that with its own: 0 where captions are not used. The band is its 95 % interval."
        level = _level("base", prompt_share(history.before), shown)
        yield Chart(key="prompt_share", title="The prompt's share", about=about, lines=(Line(name="share", points=tuple(shown)), level))


def _bands(first: Sequence[float], rows: Sequence[tuple[int, Sequence[float]]]) -> Chart:
    """Held-out loss by band: `first` the base's, `rows` by step."""
    lines = []
    for place, band in enumerate(BANDS):
        points = [(float(step), bands[place] / first[place], None, None) for step, bands in rows] if first[place] > 0 else []
        lines.append(Line(name=band, points=((0.0, 1.0, None, None), *points)))
    about = "Held-out loss by thirds of the timesteps that the run trains with, as a share of the base's: much noise is composition, "
    about += "little noise is detail."
    level = _level("base", 1.0, lines[0].points)
    return Chart(key="heldout_bands", title="Held-out loss by timestep band", about=about, lines=(*lines, level))


def logged_bands(metrics: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The bands of a run that has no checkpoint yet, as metrics.jsonl has them; None where they were not measured."""
    names = [f"heldout_{end}" for end in ("low", "middle", "high")]
    rows = [(int(row["step"]), [float(row[name]) for name in names]) for row in metrics if all(name in row for name in names)]
    return _bands(rows[0][1], rows[1:]) if len(rows) > 1 and rows[0][0] == 0 else None


def _style(style: StyleCurve | None) -> Chart | None:
    if style is None:
        return None
    points: list[Point] = [(0.0, style.base, None, None), *((float(step), far, None, None) for step, far in style.distances.items())]
    about = "Distance of the previews to the held-out images in lightness, contrast, colour and edges, in deviations of these."
    lines = (Line(name="previews", points=tuple(points)), _level("base", style.base, points))
    return Chart(key="style", title="Style distance", about=about, lines=lines)


def _rate(metrics: Sequence[Mapping[str, Any]]) -> Chart | None:
    points = [(float(row["step"]), float(row["lr"]), None, None) for row in metrics if "lr" in row]
    if not points:
        return None
    lines = (Line(name="learning rate", points=thinned(points)),)
    return Chart(key="learning_rate", title="Learning rate", about="What the schedule made of optim.lr in each step.", lines=lines)


def _others(metrics: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    """A chart for each other number that the run logged, under its own name."""
    names = dict.fromkeys(name for row in metrics for name in row if name not in OWN and not name.endswith(("_low", "_high")))
    for name in names:
        points: list[Point] = [
            (float(row["step"]), float(row[name]), _number(row, f"{name}_low"), _number(row, f"{name}_high"))
            for row in metrics
            if _number(row, name) is not None
        ]
        if points:
            title = name.replace("_", " ").capitalize()
            lines = (Line(name=name, points=extremes(points)),)
            yield Chart(key=name, title=title, about=f"{name} of metrics.jsonl.", lines=lines)


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _level(name: str, value: float, points: Sequence[Point]) -> Line:
    """A constant over the steps of the points."""
    steps = [point[0] for point in points]
    return Line(name=name, level=True, points=((min(steps), value, None, None), (max(steps), value, None, None)))


# --- the loss of each image


@dataclass(frozen=True, kw_only=True)
class ImageLoss:
    """The loss of one image at every measurement, the base's at step 0. `remark`: what is unusual about it."""

    name: str
    prompt: str
    part: str  # held out, trained
    points: tuple[tuple[int, float], ...]
    remark: str | None = None

    def to_json(self) -> dict[str, Any]:
        points = [list(point) for point in self.points]
        return {"file": self.name, "prompt": self.prompt, "part": self.part, "points": points, "remark": self.remark}


FAR = 3.5  # robust deviations from the median (Iglewicz and Hoaglin 1993) from which on an image is an outlier
FEW = 5  # images that a median needs


def image_losses(history: History, heldout: Sequence[Mapping[str, Any]], probed: Sequence[Mapping[str, Any]]) -> list[ImageLoss]:
    """The held-out images and the training images that were measured, each part with its most unusual ones first.

    Of a run that kept the losses of its training images, `training_losses` has the latter.
    """
    rows = [{"step": 0, **history.before, "losses": history.base}, *history.heldout]
    return [
        image
        for part, key, files in (("held out", "losses", heldout), ("trained", "trained", probed))
        for image in _remarked(_of_part(part, key, files, rows))
    ]


def _of_part(part: str, key: str, files: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[ImageLoss]:
    found = []
    for place, file in enumerate(files):
        points = tuple((int(row["step"]), float(row[key][place])) for row in rows if place < len(row.get(key, ())))
        if points:
            found.append(ImageLoss(name=str(file["file"]), prompt=str(file["prompt"]), part=part, points=points))
    return found


def training_losses(
    rows: Sequence[Mapping[str, Any]], files: Sequence[Mapping[str, Any]], outliers: Sequence[Mapping[str, Any]]
) -> list[ImageLoss]:
    """The training images of images.jsonl, with what the run itself found unusual about them."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        points.setdefault(row["image"], []).append((row["step"], float(row["loss"])))
    prompts = {str(file["file"]): str(file["prompt"]) for file in files}
    words = {"caption": "another image's caption fits it better than its own", "loss": "its loss stays far above the others'"}
    remarks = {str(found.get("image")): words.get(str(found.get("reason")), str(found.get("reason"))) for found in outliers}
    images = [
        ImageLoss(name=name, prompt=prompts.get(name, ""), part="trained", points=tuple(sorted(found)), remark=remarks.get(name))
        for name, found in points.items()
    ]
    return sorted(images, key=lambda image: (image.remark is None, -image.points[-1][1]))


def _remarked(images: Sequence[ImageLoss]) -> list[ImageLoss]:
    """The images with what is unusual, those that have a remark first, then by their last loss."""
    if not images:
        return []
    last = [image.points[-1][1] for image in images]
    middle = sorted(last)[len(last) // 2] if len(last) % 2 else fmean(sorted(last)[len(last) // 2 - 1 : len(last) // 2 + 1])
    spread = sorted(abs(value - middle) for value in last)[len(last) // 2] / 0.6745
    marked = []
    for image, value in zip(images, last, strict=True):
        remarks = []
        if len(images) >= FEW and spread > 0 and abs(value - middle) / spread > FAR:
            side, why = ("above", "look at its caption and its crop") if value > middle else ("below", "an easy image, or one seen before")
            remarks.append(f"far {side} the others: {why}")
        if len(image.points) > 1 and value > image.points[0][1]:
            remarks.append("worse than with the base")
        marked.append(
            ImageLoss(
                name=image.name, prompt=image.prompt, part=image.part, points=image.points, remark="; ".join(remarks) if remarks else None
            )
        )
    return sorted(marked, key=lambda image: (image.remark is None, -image.points[-1][1]))
