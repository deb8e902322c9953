import pytest

from registry.formats.image_file import Size
from train.data.dataset import Sample
from train.loop.validation import difference, split


def samples(count: int) -> list[Sample]:
    return [Sample(f"{i}.png", f"{i:064x}", Size(8, 8), "a", bytes) for i in range(count)]


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


def test_the_share_stays_when_images_are_added() -> None:
    few, many = samples(60), samples(120)
    held = {sample.name for sample in split(few, 0.25)[1]}
    assert 6 <= len(held) <= 26
    assert held == {sample.name for sample in split(many, 0.25)[1] if sample in few}


def test_both_halves_hold_something() -> None:
    for share in (1e-6, 0.999999):
        train, held = split(samples(2), share)
        assert len(train) == len(held) == 1


def test_twins_are_never_on_both_sides() -> None:
    twins = [*samples(8), *samples(8)]
    train, held = split(twins, 0.4)
    assert not {s.sha256 for s in train} & {s.sha256 for s in held}
