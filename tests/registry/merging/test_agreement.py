"""Our methods against what sd-mecha and mergekit gave for the same tensors; where they differ, the reason is shown to be the reason.

The numbers beside this file are sd-mecha's and mergekit's, written by bench/merge/agree.py.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from registry.merging.methods import linear, means, pairwise, sparse, spherical
from tests.registry.merging.models import read

if TYPE_CHECKING:
    from torch import Tensor


@cache
def numbers() -> dict[str, Tensor]:
    return read(Path(__file__).parent / "agreement.safetensors")


BASE, A, B, C = (numbers()[f"input/{name}"] for name in ("base", "a", "b", "c"))
ALIKE = {
    "mergekit/weighted_sum": lambda: linear.weighted_sum(A, B, alpha=0.3),
    "mergekit/average": lambda: linear.average(A, B, C, weights=(1.0, 2.0, 0.5)),
    "mergekit/task_arithmetic": lambda: linear.task_arithmetic(BASE, A, B, weights=(1.0, 0.5), scale=0.8),
    "mergekit/ties": lambda: sparse.ties(BASE, A, B, weights=(1.0, 0.5), density=0.4),
    "mergekit/slerp": lambda: spherical.slerp(A, B, alpha=0.3),
    "mergekit/karcher": lambda: means.karcher(A, B, C),
    "mergekit/nearswap": lambda: pairwise.nearswap(A, B, threshold=0.05),
    "mergekit/model_stock": lambda: means.model_stock(BASE, A, B, C),
    "mergekit/breadcrumbs": lambda: sparse.breadcrumbs(BASE, A, B, density=0.5, outliers=0.1),
    "mergekit/sce": lambda: sparse.sce(BASE, A, B, C, density=0.5),
    "sd-mecha/slerp, rescaled": lambda: spherical.slerp(A, B, alpha=0.3, rescale=True),
    "sd-mecha/train_difference": lambda: pairwise.train_difference(A, B, C, alpha=0.7),
    "sd-mecha/cosine, side a": lambda: pairwise.cosine(A, B, alpha=0.2, side="a"),
    "sd-mecha/cosine, side b": lambda: pairwise.cosine(A, B, alpha=0.2, side="b"),
    "sd-mecha/ties, majority of three": lambda: sparse.ties(BASE, A, B, C, density=1.0, sign="count", divide="count"),
}


@pytest.mark.parametrize("case", ALIKE)
def test_the_same_convention_gives_the_same_numbers(case: str) -> None:
    """fp32 on numbers near 1, sums in another order: a few roundings of 6e-8."""
    assert float((ALIKE[case]() - numbers()[case]).abs().max()) < 5e-7


def test_every_number_of_expected_is_held_against_ours() -> None:
    explained = {
        "sd-mecha/geometric_median",
        "sd-mecha/model_stock, by row",
        "sd-mecha/ties, even votes",
        "sd-mecha/ties, unweighted sign by count",
    }
    assert {name for name in numbers() if not name.startswith("input/")} == set(ALIKE) | explained


def test_sd_mecha_drops_places_of_an_even_vote_that_count_as_plus_here() -> None:
    expected, actual = numbers()["sd-mecha/ties, even votes"], sparse.ties(BASE, A, B, density=1.0, sign="count", divide="count")
    even = (A - BASE).sign() + (B - BASE).sign() == 0
    assert even.any() and torch.allclose(expected[~even], actual[~even], rtol=0, atol=5e-7)
    assert expected[even].equal(BASE[even]) and (actual[even] > BASE[even]).all()


def test_sd_mecha_keeps_a_few_more_values_of_a_share() -> None:
    """It drops the int((1 - k) n) - 1 smallest; here, in the paper and in mergekit the int(k n) largest are kept."""
    expected, count = numbers()["sd-mecha/ties, unweighted sign by count"], BASE.numel()
    kept = count - int((1 - 0.4) * count) + 1
    assert kept > int(0.4 * count)
    actual = sparse.ties(BASE, A, B, C, density=kept / count, sign="unweighted", divide="count")
    assert torch.allclose(expected, actual, rtol=0, atol=5e-7)


def test_sd_mechas_median_stops_where_fp32_sees_no_step() -> None:
    """The sum of distances, in fp64, is what both make small: ours is the smaller."""
    expected, actual = numbers()["sd-mecha/geometric_median"], means.geometric_median(A, B, C)
    sums = [math.fsum(float(torch.dist(point.double(), model.double())) for model in (A, B, C)) for point in (actual, expected)]
    assert sums[0] < sums[1] and float((actual - expected).abs().max()) < 1e-3


def test_sd_mechas_stock_is_one_of_each_row_by_neighbouring_pairs() -> None:
    expected = numbers()["sd-mecha/model_stock, by row"]
    deltas = [model - BASE for model in (A, B, C)]
    cosines = torch.stack([torch.nn.functional.cosine_similarity(deltas[n], deltas[n + 1], dim=-1) for n in range(2)]).mean(dim=0)
    share = 3 * cosines / (1 + 2 * cosines)
    assert torch.allclose(expected, BASE + share[:, None] * sum(deltas) / 3, rtol=0, atol=5e-6)
