"""Strengths against choix 0.4.1, scipy's optimizer and the formula."""

from itertools import combinations

import numpy as np
import pytest

from infer.vote.ranking import davidson

WINS = {(0, 1): 13, (1, 0): 7, (0, 2): 15, (2, 0): 5, (1, 2): 11, (2, 1): 9, (2, 3): 8, (3, 2): 8, (0, 3): 12, (3, 0): 4}
PAIRS = list(combinations(range(4), 2))


def counts(ties: int = 0) -> np.ndarray:
    return np.array([[[WINS.get(pair, 0), WINS.get(pair[::-1], 0), ties] for pair in PAIRS]], dtype=float)


def test_without_ties_and_prior_it_is_choix() -> None:
    """choix 0.4.1: opt_pairwise(4, data, alpha=0, tol=1e-14) and ilsr_pairwise give these."""
    found = davidson.fit(PAIRS, counts(), 4, penalty=1e-10)
    assert found.strengths[0] == pytest.approx([0.69726932, -0.02447217, -0.31853459, -0.35426257], abs=1e-6)
    assert found.tie[0] == -np.inf


def test_with_ties_it_is_the_maximum_that_scipy_finds() -> None:
    from scipy.optimize import minimize

    table = counts(ties=3)

    def loss(x: np.ndarray) -> float:
        first, second, tie = davidson.chances(x[None, :4], x[None, 4], davidson.differences(PAIRS, 4))
        likelihood = (table[0] * np.log(np.stack([first, second, tie], -1)[0])).sum()
        return float(-likelihood + np.logaddexp(x / 2, -x / 2).sum())  # log-F(1,1) on each

    other = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    found = davidson.fit(PAIRS, table, 4)
    assert found.strengths[0] == pytest.approx(other[:4] - other[:4].mean(), abs=1e-5)
    assert found.tie[0] == pytest.approx(other[4], abs=1e-5)


def test_the_chances_are_davidsons_formula() -> None:
    """Strengths log 4 and 0, nu 1/2: 2 : 1/2 : 1/2 of 3."""
    first, second, tie = davidson.chances(np.array([[np.log(4.0), 0.0]]), np.array([np.log(0.5)]), np.array([[1.0, -1.0]]))
    assert [float(first[0, 0]), float(second[0, 0]), float(tie[0, 0])] == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_a_candidate_that_won_everything_has_a_finite_strength() -> None:
    """20 of 20: about log((20 + 1/2) / (1/2)) = 3.7 between the two, with an interval of that size."""
    found = davidson.fit([(0, 1)], [[[20, 0, 0]]], 2)
    gap = float(found.strengths[0, 0] - found.strengths[0, 1])
    groups = np.zeros((20, 1, 3))
    groups[:, 0, 0] = 1
    covariance, effect = davidson.spread([(0, 1)], groups, found)
    error = float(np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    assert 3.0 < gap < 4.0 and effect == 1.0 and 1.0 < error < 2.0


def test_many_tables_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(0)
    tables = rng.integers(0, 6, (5, 6, 3)).astype(float)
    tables[2, :, 2] = 0
    together = davidson.fit(PAIRS, tables, 4)
    for row in range(5):
        alone = davidson.fit(PAIRS, tables[row : row + 1], 4)
        assert alone.strengths[0] == pytest.approx(together.strengths[row], abs=1e-9)


def test_votes_of_one_prompt_that_agree_widen_the_interval() -> None:
    """Ten prompts, each with four equal votes: as if there were about ten."""
    groups = np.zeros((10, 1, 3))
    groups[:6, 0, 0], groups[6:, 0, 1] = 4, 4
    found = davidson.fit([(0, 1)], groups.sum(0)[None], 2)
    _, effect = davidson.spread([(0, 1)], groups, found)
    assert effect == pytest.approx(4 * 10 / 9, rel=0.1)


def test_intervals_hold_planted_strengths() -> None:
    """The small form of bench/vote/coverage.py: 300 tables of 3 candidates on 20 prompts."""
    rng = np.random.default_rng(3)
    strengths, pairs = np.array([0.6, 0.0, -0.6]), list(combinations(range(3), 2))
    gap = np.array([strengths[a] - strengths[b] for a, b in pairs])
    chances = np.stack([np.exp(gap / 2), np.exp(-gap / 2), np.full(3, 0.3)], -1)
    tables = np.stack([rng.multinomial(1, row / row.sum(), size=(300, 20)) for row in chances], 2)
    held = []
    for table in tables:
        found = davidson.fit(pairs, table.sum(0)[None], 3)
        covariance, _ = davidson.spread(pairs, table, found)
        held.append(np.abs(found.strengths[0] - strengths) <= 1.96 * np.sqrt(np.diag(covariance)))
    assert 0.925 < np.mean(held) < 0.985
