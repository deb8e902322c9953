from __future__ import annotations

import math
from pathlib import Path

import numpy
import pytest

from train.output.curves import draw_curves
from train.output.plot import Chart, Line, Picture, Scale, span_of


def test_ticks_are_round_and_within_the_span() -> None:
    assert Scale(label="", span=(0.53, 0.88)).ticks == pytest.approx([0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85])
    assert Scale(label="", span=(0.0, 0.0021)).ticks == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1.25e-3, 1.5e-3, 1.75e-3, 2e-3])
    assert Scale(label="", span=(0.6, 3.2), whole=True).ticks == [1, 2, 3]


def test_a_number_has_the_decimals_that_tell_it_from_the_next() -> None:
    assert Scale(label="", span=(0.53, 0.88)).text(0.55) == "0.55"
    assert Scale(label="", span=(0.0, 0.0021)).text(2.5e-4) == "0.00025"
    assert Scale(label="", span=(0.0, 2e-7)).text(1e-7) == "1e-07"
    assert Scale(label="", span=(0.0, 20.0)).text(10) == "10.0"  # the next is 12.5


def test_a_span_has_room_around_one_value_and_none_below_its_least() -> None:
    assert span_of([1.0, 3.0]) == pytest.approx((0.9, 3.1))
    assert span_of([2.0]) == pytest.approx((1.9, 2.1)) and span_of([0.0]) == (-0.5, 0.5)
    assert span_of([0.001], least=0.0) == pytest.approx((0.0, 0.00105))


def test_a_line_a_band_and_a_dotted_line_are_where_their_values_are() -> None:
    scale = Scale(label="up", span=(0.0, 1.0))
    lines = [
        Line(points=[(0.0, 0.5), (1.0, 0.5)], colour="#ff0000", width=3),
        Line(points=[(0.5, 0.75), (1.0, 0.75)], until=[(0.5, 1.0), (1.0, 1.0)], colour="#00ff00"),
    ]
    beside = [Line(points=[(0.0, 0.25), (1.0, 0.25)], colour="#0000ff", dotted=True)]
    chart = Chart(
        box=(60, 50, 260, 250), title="", across=Scale(label="x", span=(0.0, 1.0)), up=scale, lines=lines, right=scale, beside=beside
    )
    pixels = numpy.asarray(Picture((340, 300), "", [chart]).drawn())
    assert pixels[150, [100, 200]].tolist() == [[255, 0, 0]] * 2
    assert pixels[80, 200].tolist() == [0, 255, 0] and pixels[80, 100].tolist() == [255, 255, 255]
    assert 0.2 < (pixels[200, 70:250, 0] < 128).mean() < 0.6  # dots


def test_a_legend_is_where_no_line_is() -> None:
    across, up = Scale(label="step", span=(0.0, 1.0)), Scale(label="loss", span=(0.0, 1.0))
    rows = []
    for value in (1.0, 0.3):  # up and down through the upper third of the frame, through the lower third
        line = Line(name="loss", points=[(step / 40, value - 0.3 * (step % 2)) for step in range(41)], colour="#ff0000")
        chart = Chart(box=(60, 50, 360, 250), title="", across=across, up=up, lines=[line])
        pixels = numpy.asarray(Picture((400, 320), "", [chart]).drawn()).astype(int)
        letters = (pixels[55:245, 65:355].max(axis=2) < 100).any(axis=1)  # black ones; the line is red
        rows.append(int(letters.argmax()))
    assert rows[0] > 60 > rows[1] > 0


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0 + 2.3e-16], [-5e-324, 5e-324], [1e100, -1e100], [-3.0, -1.0], [1e16, 1e16 + 2]])
def test_any_span_has_some_ticks_that_differ(values: list[float]) -> None:
    ticks = Scale(label="", span=span_of(values)).ticks
    assert 2 <= len(ticks) <= 11 and len({*ticks}) == len(ticks)


@pytest.mark.parametrize("base", [0.5, math.nan, math.inf])
def test_numbers_without_a_place_keep_no_run_from_its_curves(base: float, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = [
        {"step": step + 1, "loss": loss, "lr": -1e-4} for step, loss in enumerate([math.nan, 1.7e308, -1.7e308, 1.0])
    ]
    rows += [{"step": 4, "heldout": 0.4, "heldout_base": base, "heldout_difference_low": -math.inf, "heldout_difference_high": 0.1}]
    draw_curves(rows, tmp_path / "curves.png", title="numbers")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
