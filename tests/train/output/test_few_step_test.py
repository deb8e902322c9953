"""The few-step test on literals: what counts as kept, lost, and cannot tell."""

import pytest
from PIL import Image

from train.output.few_step_test import FewStepTest, distance


def test_the_distance_is_the_root_mean_square_of_the_pixels() -> None:
    black, gray = Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), (51, 51, 51))
    assert distance(black, black) == 0.0
    assert distance(black, gray) == pytest.approx(0.2)
    assert distance(black, Image.new("RGB", (2, 2), (255, 0, 0))) == pytest.approx((1 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("adapter", "verdict"),
    [
        ((0.10, 0.11, 0.12, 0.10), "kept"),  # a rise of 0.0075, its interval below a quarter of 0.1
        ((0.30, 0.33, 0.29, 0.31), "lost"),
        ((0.05, 0.20, 0.10, 0.16), "cannot tell"),
        ((0.10,), "cannot tell"),  # one prompt gives no interval
    ],
)
def test_the_verdict_weighs_the_rise_against_the_base_s_own_distance(adapter: tuple[float, ...], verdict: str) -> None:
    found = FewStepTest(4, 20, adapter, (0.10,) * len(adapter))
    assert found.verdict == verdict
    assert {"kept": "kept", "lost": "lost", "cannot tell": "cannot tell whether"}[verdict] in found.sentence()
    assert found.to_json()["verdict"] == verdict


def test_the_sentence_has_the_numbers() -> None:
    assert FewStepTest(4, 20, (0.30, 0.34), (0.10, 0.10)).sentence() == (
        "few-step test: cannot tell whether the adapter kept the base's 4 steps (images of 4 steps differ from those of 20 by 0.3200 with"
        " the adapter and by 0.1000 without: +0.2200, 95% interval -0.0341 .. +0.4741 over 2 prompts)"
    )
