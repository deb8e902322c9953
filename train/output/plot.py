"""A chart drawn by Pillow: a frame with ticks at round values, lines, bands and a legend where it covers least.

Lines are drawn SCALE times as large and averaged, letters at their own size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from registry.images.lettering import Style, legible, letter, width

if TYPE_CHECKING:
    from PIL.Image import Image

SCALE = 4
TEXT, TITLE = Style(15), Style(18)
INK, FRAME = "#1d1d1f", "#000000"
MARGIN = 0.05  # of a span, around its data
CLOSE, TINY = 1e-12, 1e-290  # nearer to each other, or to 0, float64 has no ticks between two values
TICK, GAP = 5, 6  # pixels: of a tick's line, and between it and its number
ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
SAMPLE = 30  # pixels of a line in the legend

Span = tuple[float, float]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points in order of x, or a band between two rows of them. `name`: in the legend."""

    points: Points
    colour: str
    width: float = 1.2  # pixels
    name: str | None = None
    dotted: bool = False
    marks: bool = False  # a dot at each point
    until: Points = ()  # the other border of a band, which is filled


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The numbers along one side of a chart."""

    label: str
    span: Span
    colour: str = INK
    whole: bool = False  # ticks at whole numbers alone

    @property
    def ticks(self) -> list[float]:
        """At most nine values, apart by 1, 2, 2.5 or 5 times a power of ten."""
        low, high = self.span
        least = (high - low) / 9
        power = 10.0 ** math.floor(math.log10(least))
        apart = next(power * each for each in ROUND if power * each >= least * (1 - 1e-9))
        if self.whole:
            apart = max(1.0, float(round(apart)))
        first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
        return [number * apart for number in range(first, last + 1)]

    def text(self, value: float) -> str:
        """A tick's number, with as many decimals as tell it from the next."""
        if self.whole:
            return f"{value:.0f}" if abs(value) < 1e6 else f"{value:g}"
        ticks = self.ticks
        apart = ticks[1] - ticks[0] if len(ticks) > 1 else self.span[1] - self.span[0]
        decimals = next((places for places in range(6) if abs(apart - round(apart, places)) < apart * 1e-6), None)
        return f"{value:g}" if decimals is None or abs(self.span[1]) >= 1e6 else f"{value:.{decimals}f}"


def span_of(values: Sequence[float], *, least: float | None = None) -> Span:
    """The span of some values with a margin, from `least` where that is given."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = low if least is None else min(low, least)
    apart = high - low if high - low > CLOSE * max(abs(low), abs(high), TINY) else abs(high)  # of one value, or of rounding around it
    room = apart * MARGIN if apart > TINY else 0.5  # around 0
    return low - (room if least is None else 0.0), high + room


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines in a frame: `box` is its left, top, right and bottom pixel. The lines of `right` have a scale of their own on that side."""

    box: tuple[int, int, int, int]
    title: str
    across: Scale
    up: Scale
    lines: Sequence[Line] = ()
    right: Scale | None = None
    beside: Sequence[Line] = ()
    note: str | None = None  # in the middle, in place of lines and numbers

    def place(self, point: tuple[float, float], up: Scale) -> tuple[float, float]:
        """Pixels of a value."""
        left, top, right, bottom = self.box
        x, y = (point[0] - self.across.span[0], point[1] - up.span[0])
        return (
            left + x / (self.across.span[1] - self.across.span[0]) * (right - left),
            bottom - y / (up.span[1] - up.span[0]) * (bottom - top),
        )


@dataclass
class Picture:
    """White, with charts."""

    size: tuple[int, int]
    title: str
    charts: list[Chart] = field(default_factory=list)

    def drawn(self) -> Image:
        """The image, RGB."""
        from PIL import Image, ImageDraw

        large = Image.new("RGB", (self.size[0] * SCALE, self.size[1] * SCALE), "white")
        for chart in self.charts:
            _Strokes(large, chart).draw()
        image = large.reduce(SCALE)
        draw = ImageDraw.Draw(image)
        for chart in self.charts:
            _Letters(image, chart).draw()
        title = legible(self.title, TITLE)
        letter(draw, (self.size[0] - width(title, TITLE)) // 2, 2, title, TITLE)
        return image


class _Strokes:
    """All of a chart but its letters, on the large image."""

    def __init__(self, image: Image, chart: Chart) -> None:
        from PIL import ImageDraw

        self.chart, self.draw_on = chart, ImageDraw.Draw(image)

    def draw(self) -> None:
        chart = self.chart
        left, top, right, bottom = chart.box
        lines = [*((line, chart.up) for line in chart.lines), *((line, chart.right) for line in chart.beside if chart.right)]
        for line, up in sorted(lines, key=lambda each: not each[0].until):  # bands below lines
            self.stroke(line, [chart.place(point, up) for point in line.points], [chart.place(point, up) for point in line.until])
        for begin, end in pairwise([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]):
            self.straight(begin, end)
        if not chart.note:
            self.ticks()
        for line, (x, y) in _legend(chart):
            ends = [(float(x), y + TEXT.leading / 2), (float(x + SAMPLE), y + TEXT.leading / 2)]
            band = [(at, high + 0.3 * TEXT.leading) for at, high in ends] if line.until else []
            self.stroke(line, [(at, high - 0.3 * TEXT.leading) for at, high in ends] if band else ends, band)

    def ticks(self) -> None:
        chart = self.chart
        left, _, right, bottom = chart.box
        for tick in chart.across.ticks:
            x = chart.place((tick, 0.0), chart.up)[0]
            self.straight((x, bottom), (x, bottom + TICK))
        for scale, x, outwards in ((chart.up, left, -TICK), (chart.right, right, TICK)):
            for tick in scale.ticks if scale else ():
                y = chart.place((chart.across.span[0], tick), scale or chart.up)[1]
                self.straight((x, y), (x + outwards, y))

    def stroke(self, line: Line, points: Points, until: Points) -> None:
        """A line, or a band, through these pixels."""
        if until:
            self.draw_on.polygon(_large([*points, *reversed(until)]), fill=line.colour)
            return
        points = _thinned(points)
        if line.dotted:
            for begin, end in _dots(points, line.width):
                self.draw_on.line(_large([begin, end]), fill=line.colour, width=round(line.width * SCALE))
        elif len(points) > 1:
            self.draw_on.line(_large(points), fill=line.colour, width=round(line.width * SCALE), joint="curve")
        if line.marks or len(points) == 1:
            reach = (line.width + 0.8) * SCALE
            for x, y in _large(points):
                self.draw_on.ellipse((x - reach, y - reach, x + reach, y + reach), fill=line.colour)

    def straight(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """A line of the frame, one pixel wide, on whole pixels."""
        (x, y), (across, down) = ((round(side) for side in point) for point in (begin, end))
        far = ((max(x, across) + 1) * SCALE - 1, (max(y, down) + 1) * SCALE - 1)
        self.draw_on.rectangle((min(x, across) * SCALE, min(y, down) * SCALE, *far), fill=FRAME)


class _Letters:
    """Title, numbers, labels and the names of the lines."""

    def __init__(self, image: Image, chart: Chart) -> None:
        from PIL import ImageDraw

        self.image, self.chart, self.draw_on = image, chart, ImageDraw.Draw(image)

    def draw(self) -> None:
        chart = self.chart
        left, top, right, bottom = chart.box
        self.centred((left + right) / 2, top - TITLE.leading - 3, chart.title, TITLE)
        if chart.note:
            self.centred((left + right) / 2, (top + bottom - TEXT.leading) / 2, chart.note, TEXT)
            return
        for tick in chart.across.ticks:
            self.centred(chart.place((tick, 0.0), chart.up)[0], bottom + TICK + 1, chart.across.text(tick), TEXT)
        self.centred((left + right) / 2, bottom + TICK + TEXT.leading, chart.across.label, TEXT)
        self.numbers(chart.up, left, -1)
        if chart.right:
            self.numbers(chart.right, right, 1)
        for line, (x, y) in _legend(chart):
            letter(self.draw_on, x + SAMPLE + 10, y, line.name or "", TEXT)

    def numbers(self, up: Scale, x: int, side: int) -> None:
        """The numbers beside the frame, and the label upright behind the widest."""
        texts = {tick: up.text(tick) for tick in up.ticks}
        for tick, text in texts.items():
            y = self.chart.place((self.chart.across.span[0], tick), up)[1] - TEXT.leading / 2
            begin = x + TICK + GAP if side > 0 else x - TICK - GAP - width(text, TEXT)
            letter(self.draw_on, round(begin), round(y), text, TEXT)
        room = TICK + GAP + max((width(text, TEXT) for text in texts.values()), default=0) + 4
        self.upright(x + room if side > 0 else x - room - TEXT.leading, up.label, Style(TEXT.size, colour=up.colour))

    def centred(self, x: float, y: float, text: str, style: Style) -> None:
        letter(self.draw_on, round(x - width(text, style) / 2), round(y), text, style)

    def upright(self, x: int, text: str, style: Style) -> None:
        """A text that reads upwards, at the middle of the frame's height."""
        from PIL import Image, ImageDraw

        flat = Image.new("RGB", (width(text, style), style.leading), "white")
        letter(ImageDraw.Draw(flat), 0, 0, text, style)
        turned = flat.transpose(Image.Transpose.ROTATE_90)
        self.image.paste(turned, (x, (self.chart.box[1] + self.chart.box[3] - turned.height) // 2))


def _legend(chart: Chart) -> list[tuple[Line, tuple[int, int]]]:
    """The named lines, each with the left top pixel of its row, where they cover least: rather right than left, and high than low."""
    named = [line for line in chart.lines if line.name]
    if not named:
        return []
    left, top, right, bottom = chart.box
    row, edge, near = TEXT.leading + 2, 12, 4
    across, down = SAMPLE + 10 + max(width(line.name or "", TEXT) for line in named), row * len(named)
    covered = [*_covered(chart.lines, chart, chart.up), *(_covered(chart.beside, chart, chart.right) if chart.right else ())]

    def count(place: tuple[int, int]) -> int:
        x, y = place
        return sum(x - near <= at <= x + across + near and y - near <= high <= y + down + near for at, high in covered)

    places = [(x, y) for x in (right - edge - across, left + edge) for y in range(top + edge, bottom - edge - down + 1, 6)]
    x, y = min(places, key=count)
    return [(line, (x, y + row * number)) for number, line in enumerate(named)]


def _covered(lines: Sequence[Line], chart: Chart, up: Scale) -> Iterator[tuple[float, float]]:
    """Pixels of lines and inside of bands, some of them."""
    for line in lines:
        points = list(_dense(_thinned([chart.place(point, up) for point in line.points])))
        yield from points
        for (x, y), (_, other) in zip(points, _dense([chart.place(point, up) for point in line.until]), strict=False):
            yield from ((x, y + (other - y) * share / 8) for share in range(1, 9))


def _dense(points: Points) -> Iterator[tuple[float, float]]:
    """The points of a line, and some between those that are far apart."""
    yield from points[:1]
    for begin, end in pairwise(points):
        pieces = max(1, round(math.dist(begin, end) / 8))
        for piece in range(1, pieces + 1):
            yield tuple(a + (b - a) * piece / pieces for a, b in zip(begin, end, strict=True))  # type: ignore[misc]


def _thinned(points: Points) -> Points:
    """The points that show: of many in a column of the large image, the first, the lowest, the highest and the last."""
    found: list[tuple[float, float]] = []
    for _, column in groupby(points, lambda point: int(point[0] * SCALE)):
        rows = list(column)
        lowest, highest = (pick(range(len(rows)), key=lambda place: rows[place][1]) for pick in (min, max))
        found += [rows[place] for place in sorted({0, lowest, highest, len(rows) - 1})]
    return found


def _dots(points: Points, width: float) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """A line in pieces as long as it is wide, apart by as much again and two thirds."""
    period, at = width * 2.65, 0.0  # where in the period a stretch begins
    for begin, end in pairwise(points):
        length = math.dist(begin, end)
        inside = -at
        while inside < length:
            low, high = max(0.0, inside), min(length, inside + width)
            if high > low:
                yield _between(begin, end, low / length), _between(begin, end, high / length)
            inside += period
        at = (at + length) % period


def _between(begin: tuple[float, float], end: tuple[float, float], share: float) -> tuple[float, float]:
    return begin[0] + (end[0] - begin[0]) * share, begin[1] + (end[1] - begin[1]) * share


def _large(points: Points) -> list[tuple[float, float]]:
    """The same on the large image: pixels are counted from their corner there."""
    return [((x + 0.5) * SCALE, (y + 0.5) * SCALE) for x, y in points]
