"""Curves as literals: the smoothed loss with its interval, levels and bands, and what is unusual about an image."""

from typing import Any

import pytest

from train.loop.history import History
from train.output.style import StyleCurve
from train.run_report.charts import MOST, charts_of, extremes, image_losses, logged_bands, smoothed, thinned, training_losses


def measured(step: int, losses: list[float]) -> dict[str, Any]:
    row = {"losses": losses, "bands": [0.8, 0.6, 0.4], "trained": [0.5, 0.7], "others": [0.9, 1.1], "own": [0.7, 0.8]}
    return row | ({"step": step} if step else {})


def test_the_smoothed_loss_has_the_interval_of_a_weighted_mean() -> None:
    """Weights of two values at weight 1/2: 1/3 and 2/3, squares 5/9 in sum; variance 2 (1/3 + 2/3) - ... of 1 and 4 around 3."""
    first, second = smoothed([1.0, 4.0], weight=0.5)
    assert first == (1.0, 1.0, 1.0)
    mean, low, high = second  # 1/3 + 8/3 = 3; variance (1 + 32)/3 - 9 = 2, over 1 - 5/9; times 5/9: 2.5
    assert mean == pytest.approx(3.0) and high - mean == pytest.approx(1.96 * 2.5**0.5) and mean - low == pytest.approx(high - mean)


def test_each_curve_has_its_lines_intervals_and_levels() -> None:
    metrics: list[dict[str, Any]] = [
        {"step": 0, "heldout_base": 0.9, "heldout_trained": 0.95},
        {"step": 1, "loss": 0.8, "lr": 1e-3, "gradient_norm": 0.2},
        {"step": 2, "loss": 0.6, "lr": 5e-4},
        {"step": 2, "heldout": 0.7, "heldout_difference": -0.2, "heldout_difference_low": -0.3, "heldout_difference_high": -0.1},
    ]
    history = History(base=[0.8, 1.0], before=measured(0, [0.8, 1.0]), heldout=[measured(2, [0.6, 0.8])])
    found = {chart.key: chart for chart in charts_of(metrics, history, StyleCurve(3.0, {2: 1.5}))}
    assert list(found) == ["training_loss", "heldout_loss", "heldout_bands", "prompt_share", "style", "gradient_norm", "learning_rate"]
    line, trained, base = found["heldout_loss"].lines
    assert line.points[0] == (0.0, 0.9, None, None) and line.points[1][:2] == (2.0, 0.7)
    assert [line.points[1][2], line.points[1][3]] == [pytest.approx(0.6), pytest.approx(0.8)]
    assert trained.points == ((0.0, 0.95, None, None),) and base.level and base.points[0][1] == base.points[1][1] == 0.9
    assert [point[1] for point in found["heldout_bands"].lines[0].points] == [1.0, 1.0]  # equal bands: a share of 1
    share = found["prompt_share"].lines[0].points[1]
    assert share[1] == pytest.approx(0.25) and share[2] is not None and share[2] < 0.25  # of 0.2 and 0.3
    assert found["style"].lines[0].points == ((0.0, 3.0, None, None), (2.0, 1.5, None, None))
    assert found["gradient_norm"].lines[0].points == ((1.0, 0.2, None, None),)


def test_a_run_without_measurements_has_the_curves_that_it_has() -> None:
    assert [chart.key for chart in charts_of([{"step": 1, "loss": 1.0, "lr": 0.1}], None, None)] == ["training_loss", "learning_rate"]
    assert charts_of([], None, None) == []


def test_a_long_line_keeps_its_first_and_its_last_point() -> None:
    points = [(float(step), 1.0, None, None) for step in range(10_000)]
    found = thinned(points)
    assert len(found) == MOST and found[0] == points[0] and found[-1] == points[-1]


def test_a_line_of_single_steps_keeps_its_peaks() -> None:
    points = [(float(step), 9.0 if step == 7_777 else -9.0 if step == 3_333 else 1.0, None, None) for step in range(10_000)]
    found = extremes(points)
    assert len(found) <= MOST and points[7_777] in found and points[3_333] in found and [*found] == sorted(found)
    assert extremes(points[:MOST]) == tuple(points[:MOST])


def test_the_bands_of_a_run_without_a_checkpoint_are_those_that_were_logged() -> None:
    names = ("heldout_low", "heldout_middle", "heldout_high")
    rows = [{"step": step, **dict(zip(names, bands, strict=True))} for step, bands in ((0, (0.5, 1.0, 2.0)), (10, (0.25, 0.9, 1.0)))]
    found = logged_bands(rows)
    assert found is not None and [line.points[1][1] for line in found.lines[:3]] == [0.5, 0.9, 0.5]
    assert [line.name for line in found.lines] == ["little noise", "middle", "much noise", "base"]
    assert logged_bands(rows[1:]) is None and logged_bands([]) is None


def test_unusual_images_are_first_with_what_is_unusual() -> None:
    names = ["a.png", "b.png", "c.png", "d.png", "e.png", "far.png"]
    base, last = [0.9, 0.9, 0.9, 0.9, 0.4, 2.0], [0.50, 0.51, 0.52, 0.53, 0.54, 1.9]
    history = History(base=base, before={"losses": base}, heldout=[{"step": 10, "losses": last}])
    found = image_losses(history, [{"file": name, "prompt": f"a {name}"} for name in names], [])
    assert [image.name for image in found] == ["far.png", "e.png", "d.png", "c.png", "b.png", "a.png"]
    assert found[0].points == ((0, 2.0), (10, 1.9)) and (found[0].remark or "").startswith("far above the others")
    assert found[1].remark == "worse than with the base" and all(image.remark is None for image in found[2:])


def test_the_losses_of_training_images_have_what_the_run_found() -> None:
    rows = [
        {"step": step, "image": name, "loss": loss} for step, name, loss in [(0, "a", 0.9), (5, "a", 0.5), (0, "b", 0.8), (5, "b", 0.7)]
    ]
    found = training_losses(rows, [{"file": "a", "prompt": "a cat"}], [{"image": "a", "reason": "caption", "value": -0.1}])
    assert [(image.name, image.prompt, image.part, image.points) for image in found] == [
        ("a", "a cat", "trained", ((0, 0.9), (5, 0.5))),
        ("b", "", "trained", ((0, 0.8), (5, 0.7))),
    ]
    assert found[0].remark == "another image's caption fits it better than its own" and found[1].remark is None
