"""Win rates, exact tests and power: scipy's own values, and literals."""

import pytest

from infer.vote.ranking.binomial import design_effect, detectable, flip_test, holm, power, sign_test, votes_needed, wilson


@pytest.mark.parametrize(("wins", "losses"), [(6, 4), (12, 8), (60, 40), (1, 9), (0, 5), (5, 0), (7, 7), (0, 0)])
def test_interval_and_test_are_scipys(wins: int, losses: int) -> None:
    from scipy.stats import binomtest

    if wins + losses == 0:
        assert wilson(0, 0) == (0.0, 1.0) and sign_test(0, 0) == 1.0
        return
    other = binomtest(wins, wins + losses)
    assert sign_test(wins, losses) == pytest.approx(other.pvalue, abs=1e-12)
    assert wilson(wins, wins + losses) == pytest.approx(tuple(other.proportion_ci(method="wilson")), abs=1e-12)


def test_sixty_of_a_hundred() -> None:
    assert wilson(60, 100) == pytest.approx((0.5020, 0.6906), abs=1e-4)
    assert sign_test(60, 40) == pytest.approx(0.0569, abs=1e-4)


def test_flipping_prompts_with_one_vote_each_is_the_sign_test() -> None:
    assert flip_test([1] * 15 + [-1] * 4 + [0] * 3) == pytest.approx(sign_test(15, 4))
    assert flip_test([]) == 1.0


def test_flipping_whole_prompts_takes_their_votes_as_one() -> None:
    """Nets 3, 3, -1: of 8 sign patterns |sum| >= 5 in 4 (both threes alike)."""
    assert flip_test([3, 3, -1]) == 0.5
    assert sign_test(6, 1) == pytest.approx(0.125)


def test_design_effect() -> None:
    assert design_effect([1, 0, 1, 1], [1, 1, 1, 1]) == 1.0  # a vote a prompt
    # share 1/2: deviations 2, -2, 2, -2, squares 16, times 4/3, over 16 * 1/4
    assert design_effect([4, 0, 4, 0], [4, 4, 4, 4]) == pytest.approx(16 * 4 / 3 / 4)
    assert design_effect([2, 2, 2, 2], [4, 4, 4, 4]) == 1.0  # never below


@pytest.mark.parametrize(("rate", "needed", "strict"), [(0.6, 199, 330), (0.65, 90, 147), (0.7, 49, 80), (0.75, 30, 51), (0.8, 20, 36)])
def test_votes_that_are_needed(rate: float, needed: int, strict: int) -> None:
    """80 % power, two-sided exact, at levels 0.05 and 0.005."""
    assert power(needed, rate) >= 0.8 and votes_needed(rate) == needed
    assert power(strict, rate, level=0.005) >= 0.8 and votes_needed(rate, level=0.005) == strict


def test_what_votes_can_detect() -> None:
    assert detectable(24) == pytest.approx(0.797, abs=0.001)
    assert detectable(5) is None  # 5 of 5 has p 0.0625
    assert detectable(6) is not None and votes_needed(0.5) is None


def test_power_is_that_of_scipys_test() -> None:
    from scipy.stats import binom, binomtest

    rejected = [count for count in range(31) if binomtest(count, 30).pvalue <= 0.05]
    assert power(30, 0.7) == pytest.approx(float(sum(binom.pmf(rejected, 30, 0.7))))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.6, 0.9]) == [1.0, 1.0]
