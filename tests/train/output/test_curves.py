from pathlib import Path

import pytest
from PIL import Image

from train.output.curves import draw_curves, smoothed


def test_the_mean_is_corrected_for_its_start() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([1.0, 0.0])[1] == pytest.approx(0.05 * 0.95 / (1 - 0.95**2))


def test_rows_that_lack_a_number_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "heldout_base": 0.9},
        {"step": 1, "loss": 0.5, "lr": 1e-4},
        {"step": 2, "loss": 0.5},
        {"step": 2, "heldout": 0.8, "heldout_difference_low": -0.2},
    ]
    draw_curves(rows, tmp_path / "curves.png", title="ink")
    assert Image.open(tmp_path / "curves.png").format == "PNG"
