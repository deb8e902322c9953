"""The bootstrap over prompts and seeds: seeded, right on what is known, and silent where nothing can be told."""

import numpy
import pytest

from infer.score.intervals import Interval, Resamples, clustered


def test_the_same_seed_gives_the_same_interval() -> None:
    table = numpy.random.default_rng(1).normal(size=(8, 2))
    assert Resamples(8, 2, seed=3).interval(table) == Resamples(8, 2, seed=3).interval(table)
    assert Resamples(8, 2, seed=3).interval(table) != Resamples(8, 2, seed=4).interval(table)


def test_the_interval_of_a_mean_is_that_of_its_prompts() -> None:
    """Seeds of one prompt are equal: the interval is about 1.96 deviations of 16 prompts' mean, not of 64 images'."""
    prompts = numpy.random.default_rng(0).normal(loc=0.5, size=(16, 1))
    found = Resamples(16, 4).interval(numpy.repeat(prompts, 4, axis=1))
    reach = 1.96 * float(prompts.std(ddof=0)) / 4
    assert found.value == pytest.approx(float(prompts.mean())) and found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * reach, rel=0.1)
    wide = Resamples(16, 4).interval(numpy.repeat(prompts, 4, axis=1), comparisons=10)
    assert wide.low is not None and wide.low < found.low


@pytest.mark.parametrize(("value", "side"), [(-1.0, "below"), (1.0, "above")])
def test_a_difference_without_spread_has_a_side(value: float, side: str) -> None:
    assert Resamples(5, 2).interval(numpy.full((5, 2), value)).side == side


def test_three_prompts_cannot_tell() -> None:
    found = Resamples(3, 9).interval(numpy.full((3, 9), -1.0))
    assert (found.value, found.low, found.high, found.side) == (-1.0, None, None, "cannot tell")


def test_groups_are_drawn_whole() -> None:
    """Copies of each value within its group change nothing."""
    values = numpy.random.default_rng(2).normal(size=12).tolist()
    alone, thrice = clustered([[value] for value in values]), clustered([[value] * 3 for value in values])
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high)) and thrice.value == pytest.approx(float(numpy.mean(values)))
    assert clustered([[value] for value in values[:4]]).low is None and clustered([[1.0, 3.0]]) == Interval(2.0, None, None)


def test_the_interval_of_few_groups_holds() -> None:
    """400 draws of 6 groups: 95 % of the intervals hold the true mean; the deviation of such a share is 1.1 %."""
    generator = numpy.random.default_rng(3)
    found = [clustered([[value] for value in generator.normal(size=6)]) for _ in range(400)]
    held = [one.low is not None and one.high is not None and one.low <= 0 <= one.high for one in found]
    assert 0.92 <= sum(held) / 400 <= 0.98
