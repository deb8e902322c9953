import pytest

from train.loop.validation import difference


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    adapted, base = [1.0, 0.8, 0.9, 1.2, 0.7], [1.1, 1.0, 0.95, 1.25, 0.9]
    found = difference(adapted, base)
    wanted = ttest_rel(adapted, base).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx(-0.12) and found.verdict == "better"


def test_it_cannot_tell_when_the_interval_spans_nothing() -> None:
    assert difference([1.0, 0.8], [0.9, 0.9]).verdict == "cannot tell"
    assert difference([1.0], [2.0]).verdict == "cannot tell"
    assert difference([2.0, 2.1, 2.2], [1.0, 1.1, 1.25]).verdict == "worse"
