"""Each method on literals worked by hand, and its laws: ends, linearity, permutation, weight 0 and 1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from registry.merging.method import METHODS, Chunks, Place
from registry.merging.methods.linear import add_difference, average, task_arithmetic, weighted_sum
from registry.merging.methods.means import geometric_median, karcher, model_stock
from registry.merging.methods.pairwise import cosine, nearswap, train_difference
from registry.merging.methods.sparse import breadcrumbs, dare_linear, dare_ties, della, magnitude_prune, sce, ties
from registry.merging.methods.spherical import slerp
from registry.merging.random_draws import below, uniform
from registry.tensors.chunks import Held, kth_largest


def some(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (4, 5), generator=torch.Generator().manual_seed(seed))


def near(found: Tensor, wanted: list[float], tolerance: float = 1e-6) -> bool:
    """fp32 arithmetic on numbers near 1: one rounding is 6e-8, a handful of operations stay below 1e-6."""
    return torch.allclose(found, torch.tensor(wanted), rtol=0, atol=tolerance)


# --- linear


def test_weighted_sum_by_hand() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -6.0])
    assert weighted_sum(a, b, alpha=0.25).equal(torch.tensor([1.5, 0.0]))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_weighted_sum_keeps_equal_values_and_meets_its_ends(alpha: float) -> None:
    a, b = some(1), some(2)
    assert weighted_sum(a, a, alpha=alpha).equal(a)
    assert weighted_sum(a, b, alpha=0.0).equal(a) and weighted_sum(a, b, alpha=1.0).equal(b)
    assert torch.allclose(weighted_sum(a, b, alpha=alpha), weighted_sum(b, a, alpha=1 - alpha), rtol=0, atol=1e-6)


def test_add_difference_by_hand_and_without_a_difference() -> None:
    a, b, c = torch.tensor([1.0, 1.0]), torch.tensor([5.0, 2.0]), torch.tensor([3.0, 4.0])
    assert add_difference(a, b, c, alpha=0.5).equal(torch.tensor([2.0, 0.0]))
    assert add_difference(a, b, b).equal(a) and add_difference(a, b, c, alpha=0.0).equal(a)


def test_average_by_hand() -> None:
    models = [torch.tensor([1.0, 0.0]), torch.tensor([2.0, 3.0]), torch.tensor([6.0, 9.0])]
    assert average(*models).equal(torch.tensor([3.0, 4.0]))
    assert average(*models, weights=(1.0, 0.0, 3.0)).equal(torch.tensor([4.75, 6.75]))
    assert average(*models, weights=(1.0, 1.0, 1.0), normalize=False).equal(torch.tensor([9.0, 12.0]))
    assert average(models[1], weights=(0.5,)).equal(models[1])


def test_average_takes_sources_in_any_order() -> None:
    a, b, c = some(1), some(2), some(3)
    assert torch.allclose(average(a, b, c), average(c, a, b), rtol=0, atol=1e-6)


def test_task_arithmetic_by_hand() -> None:
    base, a, b = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]), torch.tensor([1.0, 4.0])
    assert task_arithmetic(base, a, b, weights=(1.0, 2.0), scale=0.5).equal(torch.tensor([1.5, 3.5]))
    assert task_arithmetic(base, a, weights=(0.0,)).equal(base)


def test_task_arithmetic_with_one_task_is_add_difference() -> None:
    base, tuned = some(1), some(2)
    assert torch.allclose(task_arithmetic(base, tuned, scale=0.7), add_difference(base, tuned, base, alpha=0.7), rtol=0, atol=1e-6)


# --- slerp


def test_slerp_by_hand_on_a_right_angle() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    half = math.sqrt(0.5)
    assert near(slerp(a, b, alpha=0.5), [half, half])
    assert near(slerp(a, b, alpha=1 / 3), [math.cos(math.pi / 6), math.sin(math.pi / 6)])


def test_slerp_conventions_differ_where_lengths_do() -> None:
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    half = math.sqrt(0.5)
    assert near(slerp(a, b, alpha=0.5), [3 * half, half])  # mergekit: the tensors as they are
    assert near(slerp(a, b, alpha=0.5, rescale=True), [2 * half, 2 * half])  # sd-mecha: directions, and the mean of the lengths


def test_slerp_meets_its_ends_and_keeps_the_length_of_unit_tensors() -> None:
    a, b = some(1), some(2)
    assert slerp(a, b, alpha=0.0).equal(a) and slerp(a, b, alpha=1.0).equal(b)
    a, b = a / a.norm(), b / b.norm()
    assert float(slerp(a, b, alpha=0.37).norm()) == pytest.approx(1.0, abs=1e-6)


def test_slerp_of_parallel_opposite_and_zero_tensors_is_lerp() -> None:
    a = some(1)
    for b in (2 * a, -a, torch.zeros_like(a)):
        assert slerp(a, b, alpha=0.25).equal(a.lerp(b, 0.25))


# --- ties

BASE = torch.zeros(4)
FIRST, SECOND = torch.tensor([1.0, 2.0, -3.0, 4.0]), torch.tensor([-0.1, 2.0, 0.5, -8.0])


def test_ties_elects_the_sign_of_the_sum() -> None:
    # sums of the signs' values: 0.9, 4, -2.5, -4: so + + - -; what agrees: 1 | 2, 2 | -3 | -8
    assert ties(BASE, FIRST, SECOND, density=1.0).equal(torch.tensor([1.0, 2.0, -3.0, -8.0]))


def test_ties_by_count_takes_plus_where_the_votes_are_even() -> None:
    # sd-mecha drops such places (0, 2, 0, 0); here and in PEFT an even vote is a plus
    assert ties(BASE, FIRST, SECOND, density=1.0, sign="count").equal(torch.tensor([1.0, 2.0, 0.5, 4.0]))


def test_ties_weighted_and_unweighted_signs_part() -> None:
    weights = (1.0, 0.1)
    assert ties(BASE, FIRST, SECOND, density=1.0, weights=weights).equal(torch.tensor([1.0, 2.0, -3.0, 4.0]))
    unweighted = ties(BASE, FIRST, SECOND, density=1.0, weights=weights, sign="unweighted")
    assert near(unweighted, [1.0, 2.0, -3.0, -8.0])


def test_ties_divides_as_it_is_reported() -> None:
    weights = (0.5, 0.25)
    # place 1: 0.5 * 2 + 0.25 * 2 = 1.5, over the weights 0.75, over the number 2, over nothing
    for divide, wanted in (("weights", 2.0), ("count", 0.75), ("none", 1.5)):
        assert float(ties(BASE, FIRST, SECOND, density=1.0, weights=weights, divide=divide)[1]) == pytest.approx(wanted)


def test_ties_trims_to_the_largest() -> None:
    base, tuned = torch.ones(5), torch.tensor([1.1, 3.0, 0.5, -3.0, 1.2])
    # differences 0.1, 2, -0.5, -4, 0.2; 40 % of five are two: 2 and -4
    assert ties(base, tuned, density=0.4).equal(torch.tensor([1.0, 3.0, 1.0, -3.0, 1.0]))


def test_ties_of_one_source_whole_is_that_source_and_of_none_the_base() -> None:
    base, tuned = some(1), some(2)
    assert torch.allclose(ties(base, tuned, density=1.0), tuned, rtol=0, atol=1e-6)
    assert ties(base, tuned, density=1.0, scale=0.0).equal(base) and ties(base, base).equal(base)


def test_ties_takes_sources_in_any_order() -> None:
    base, a, b, c = some(1), some(2), some(3), some(4)
    assert torch.allclose(ties(base, a, b, c), ties(base, c, a, b), rtol=0, atol=1e-6)


def mergekit_ties(base: Tensor, tuned: list[Tensor], weights: list[float], density: float) -> Tensor:
    """mergekit's `ties` with normalize, written down from its source: argsort, sign of the weighted sum, sum of kept weights."""
    deltas = []
    for model in tuned:
        delta = model - base
        keep = torch.zeros_like(delta)
        keep.view(-1)[torch.argsort(delta.abs().view(-1), descending=True)[: int(density * delta.numel())]] = 1
        deltas.append(delta * keep)
    stacked, shares = torch.stack(deltas), torch.tensor(weights)[:, None, None]
    weighted = stacked * shares
    majority = (weighted.sum(dim=0) >= 0).to(weighted.dtype) * 2 - 1
    mask = weighted.sign() == majority
    divisor = (shares * mask).sum(dim=0)
    divisor[divisor == 0] = 1
    return base + (weighted * mask).sum(dim=0) / divisor


def test_ties_agrees_with_mergekit() -> None:
    base, a, b = some(1, 30, 40), some(2, 30, 40), some(3, 30, 40)
    actual = ties(base, a, b, weights=(0.7, 0.5), density=0.3)
    assert torch.allclose(actual, mergekit_ties(base, [a, b], [0.7, 0.5], 0.3), rtol=0, atol=1e-6)


# --- means on the sphere, medians, stock


def test_karcher_of_two_is_the_middle_of_the_arc() -> None:
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    assert near(karcher(a, b), [math.sqrt(0.5), math.sqrt(0.5), 0.0])
    assert torch.allclose(karcher(a, b, weights=(2.0, 1.0)), slerp(a, b, alpha=1 / 3), rtol=0, atol=1e-6)


def test_karcher_of_three_axes_is_the_diagonal_with_their_mean_length() -> None:
    one = 4 / math.sqrt(3)  # lengths 3, 4, 5
    found = karcher(torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0]), torch.tensor([0.0, 0.0, 5.0]))
    assert near(found, [one, one, one], 1e-5)


def test_karcher_keeps_what_all_sources_are_and_leaves_zeros_out() -> None:
    a = some(1)
    assert torch.allclose(karcher(a, a, a), a, rtol=0, atol=1e-6)
    assert torch.allclose(karcher(a, torch.zeros_like(a)), a, rtol=0, atol=1e-6)
    assert karcher(torch.zeros(3), torch.zeros(3)).equal(torch.zeros(3))


def test_the_geometric_median_stays_with_the_majority() -> None:
    near_by, stray = torch.tensor([1.0, 1.0]), torch.tensor([100.0, -100.0])
    assert near(geometric_median(near_by, near_by, stray), [1.0, 1.0], 1e-3)
    corners = [torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([2.0, 2.0])]
    assert near(geometric_median(*corners), [1.0, 1.0], 1e-5)


def test_the_median_of_an_equilateral_triangle_is_its_centre() -> None:
    triangle = [torch.tensor([math.cos(angle), math.sin(angle)]) for angle in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)]
    assert near(geometric_median(*triangle), [0.0, 0.0], 1e-5)


def test_model_stock_by_hand() -> None:
    base = torch.tensor([1.0, 1.0])
    a, b = base + torch.tensor([2.0, 0.0]), base + torch.tensor([1.0, math.sqrt(3.0)])  # an angle of 60 degrees
    share = 2 * 0.5 / (1 + 0.5)  # t = N cos / (1 + (N - 1) cos) = 2 / 3
    mean = (a + b) / 2
    assert torch.allclose(model_stock(base, a, b), share * mean + (1 - share) * base, rtol=0, atol=1e-6)


def test_model_stock_of_equal_and_of_opposite_models() -> None:
    base, a = some(1), some(2)
    assert torch.allclose(model_stock(base, a, a), a, rtol=0, atol=1e-5)
    assert model_stock(base, base + 1.0, base - 1.0).equal(base)


# --- pairs


def test_train_difference_by_hand() -> None:
    a, b, c = torch.tensor([1.0, 0.0, 2.0, 5.0]), torch.tensor([4.0, 1.0, 2.0, 3.0]), torch.tensor([3.0, 0.0, 1.0, 3.0])
    # learned b - c: 1, 1, 1, 0; |b - a|: 3, 1, 0, 2; so shares 3/4, 1/2, 0, 0 times 1.8
    assert near(train_difference(a, b, c), [1.0 + 1.8 * 0.75, 1.8 * 0.5, 2.0, 5.0])
    assert train_difference(a, b, c, alpha=0.0).equal(a) and train_difference(a, b, b).equal(a)


def test_nearswap_by_hand() -> None:
    a, b = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 1.5, 3.0])
    assert near(nearswap(a, b, threshold=0.5), [1.0, 1.5, 1.0 + 2.0 * 0.25])
    assert nearswap(a, b, threshold=0.0).equal(a)


def test_cosine_by_hand() -> None:
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    # columns: (1, 0) and (2, 0) are alike: a; (0, 1) and (1, 0) are not: b
    assert cosine(a, b).equal(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert cosine(a, b, alpha=1.0).equal(b)  # no likeness is enough
    whole = 2 / math.sqrt(2 * 5)
    wanted = torch.lerp(a, b, 1 - torch.tensor([(1 + whole) / 2, whole / 2]))
    assert torch.allclose(cosine(a, b, side="b"), wanted, rtol=0, atol=1e-6)


def test_cosine_of_a_vector_is_that_of_the_whole() -> None:
    a, b = some(1, 7), some(2, 7)
    likeness = max(0.0, float(torch.nn.functional.cosine_similarity(a, b, dim=0)))
    assert torch.allclose(cosine(a, b), torch.lerp(a, b, 1 - likeness), rtol=0, atol=1e-6)


# --- thinned differences

ZERO, STEPS = torch.zeros(10), torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0, 9.0, -10.0])


def test_magnitude_prune_by_hand() -> None:
    kept = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, -8, 9, -10])
    assert magnitude_prune(ZERO, STEPS, density=0.3).equal(kept)
    assert magnitude_prune(ZERO, STEPS, STEPS, weights=(1.0, 0.5), density=0.3, scale=2.0).equal(3 * kept)
    assert magnitude_prune(ZERO, STEPS, density=1.0).equal(STEPS)


def test_breadcrumbs_leave_out_the_largest_and_the_smallest() -> None:
    assert breadcrumbs(ZERO, STEPS, density=0.3, outliers=0.2).equal(torch.tensor([0.0, 0, 0, 0, 0, -6, 7, -8, 0, 0]))
    assert breadcrumbs(ZERO, STEPS, density=1.0, outliers=0.0).equal(STEPS)


@pytest.mark.parametrize("method", [dare_linear, dare_ties, della])
def test_random_thinning_keeps_the_mean_belongs_to_its_place_and_repeats_itself(method: object) -> None:
    assert callable(method)
    base, tuned, here, there = torch.zeros(400, 50), torch.ones(400, 50), Place("here", 0, 50), Place("there", 0, 50)
    one, again, other = method(base, tuned, at=here), method(base, tuned, at=here), method(base, tuned, at=there)
    assert one.equal(again) and not one.equal(other) and not one.equal(method(base, tuned, at=here, seed=1))
    assert float((one != 0).float().mean()) == pytest.approx(0.5, abs=0.02)  # 20,000 draws: the deviation is 0.0035
    assert float(one.mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("limit", [1e-60, 1e-9, 0.2, 0.3, 1 / 3, 0.5, 1 - 1e-7, 1 - 1e-9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_kept_at_random_is_what_the_numbers_by_place_say(limit: float, dtype: torch.dtype) -> None:
    like = torch.empty(333, 33, dtype=dtype)  # an odd number: half of the generator's last 64 bits is left over
    at = Place("key", 1 << 20)
    assert below(limit, like, seed=5, source=1, at=at).equal((uniform(like, seed=5, source=1, at=at) < limit).to(dtype))


def test_two_sources_are_thinned_apart() -> None:
    base, tuned = torch.zeros(1000), torch.ones(1000)
    found = dare_linear(base, tuned, 3 * tuned, at=Place("key", 0))
    assert {float(value) for value in found} == {0.0, 2.0, 6.0, 8.0}


def test_dare_keeping_all_is_task_arithmetic() -> None:
    base, a, b = some(1), some(2), some(3)
    assert torch.allclose(dare_linear(base, a, b, density=1.0), task_arithmetic(base, a, b), rtol=0, atol=1e-6)
    assert torch.allclose(dare_ties(base, a, b, density=1.0), ties(base, a, b, density=1.0, divide="none"), rtol=0, atol=1e-6)


def test_della_keeps_large_values_more_often() -> None:
    row = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).repeat(4000, 1)
    found = della(torch.zeros_like(row), row, density=0.5, epsilon=0.4, at=Place("key", 0, 5))
    shares = (found != 0).float().mean(dim=0)
    for share, chance in zip(shares, (0.1, 0.3, 0.5, 0.7, 0.9), strict=True):
        assert float(share) == pytest.approx(chance, abs=0.04)  # 4,000 draws: the deviation is at most 0.008
    assert "must stay above 0" in METHODS["della"].faults({"density": 0.05}, 2)[0]


def test_sce_by_hand() -> None:
    base = torch.zeros(4)
    a, b = torch.tensor([1.0, 4.0, 2.0, -1.0]), torch.tensor([1.0, -2.0, 2.0, 3.0])
    # variances 0, 9, 0, 4: half of the places are 1 and 3; squares there: a 16 + 1, b 4 + 9, so shares 17/30 and 13/30;
    # signs of the sums 2 and 2: plus, so a alone at 1 and b alone at 3
    assert near(sce(base, a, b, density=0.5), [0.0, 4.0, 0.0, 3.0])
    assert near(sce(base, a, b, density=1.0), [1.0, 4.0, 2.0, 3.0])


# --- selection


class Counted(Held):
    """Chunks that may hold nothing, so that values are counted by their bits."""

    scratch = 0

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__(*tensors, scratch=0)


@pytest.mark.parametrize("rank", [1, 2, 17, 500, 999, 1000])
def test_selection_by_partition_and_by_counting_bits_is_one(rank: int) -> None:
    values = some(5, 1000)
    values[:300] = values[0]  # many equal ones
    wanted = float(values.abs().sort(descending=True).values[rank - 1])
    for chunks in (Held(values), Counted(values)):
        assert kth_largest(_typed(chunks), lambda chunk: chunk[0].abs(), [rank]) == [wanted]


def _typed(chunks: Chunks) -> Chunks:
    return chunks


# --- options


def test_options_are_the_keyword_only_parameters() -> None:
    assert list(METHODS["ties"].options) == ["weights", "density", "sign", "divide", "scale"]
    assert METHODS["slerp"].count_words == "exactly 2" and METHODS["ties"].count_words == "at least 2"


@pytest.mark.parametrize(
    ("params", "sources", "words"),
    [
        ({"densty": 0.3}, 3, "Did you mean 'density'?"),
        ({"density": 0.0}, 3, "above 0 to 1"),
        ({"density": True}, 3, "a number"),
        ({"density": math.nan}, 3, "a number"),
        ({"weights": (1.0,)}, 3, "needs 2, one a source without the base"),
        ({"sign": "sum"}, 3, "weighted or unweighted or count"),
        ({}, 1, "takes at least 2 sources, got 1"),
    ],
)
def test_a_wrong_option_is_reported(params: dict[str, object], sources: int, words: str) -> None:
    (fault,) = METHODS["ties"].faults(params, sources)
    assert words in fault


def test_weights_that_sum_to_nothing_cannot_be_normalised() -> None:
    assert "normalize=false" in METHODS["average"].faults({"weights": (1.0, -1.0)}, 2)[0]


def test_every_method_says_what_it_does_and_what_its_options_mean() -> None:
    for method in METHODS.values():
        assert method.summary.endswith((".", "):", ")."))
        assert all(option.meaning for option in method.options.values()), method.name


@pytest.mark.parametrize("method", ["karcher", "geometric_median", "model_stock"])
def test_numbers_that_are_none_are_not_left_out_in_silence(method: str) -> None:
    """A source with NaN makes the result NaN, which the stream refuses; it used to give the base, or the mean of the others."""
    sound = [torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])]
    for bad in (float("nan"), float("inf")):
        found = METHODS[method].apply(*sound, torch.tensor([bad, 1.0]))
        assert not bool(torch.isfinite(found).all())
