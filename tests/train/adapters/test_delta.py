import math

import pytest
import torch

from registry.errors import JobFailed
from train.adapters import delta
from train.adapters.delta import Delta, of_dora, of_factors, of_whole


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "PIECE", 4)


def of_tensor(change: torch.Tensor) -> Delta:
    return of_whole(lambda: change, tuple(change.shape))


UP, DOWN = torch.tensor([[1.0], [2.0], [-3.0]]), torch.tensor([[1.0, -1.0]])


def test_factors_are_multiplied_a_few_rows_at_a_time() -> None:
    found = of_factors(UP, DOWN, 0.5)
    assert [rows.stop - rows.start for rows in found.pieces()] == [2, 2], "two rows of two numbers"
    assert found.shape == (3, 2) and found.change.tolist() == [[0.5, -0.5], [1.0, -1.0], [-1.5, 1.5]]
    assert torch.cat([found.begin()(rows) for rows in found.pieces()]).equal(found.change)


def test_those_of_a_convolution_have_its_shape() -> None:
    up, down = torch.randn(4, 2, 1, 1), torch.randn(2, 3, 3, 3)
    found = of_factors(up, down)
    wanted = torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    assert found.shape == (4, 3, 3, 3) and torch.allclose(found.change, wanted, atol=1e-6)


def test_the_largest_difference_may_be_in_any_row() -> None:
    change = of_factors(UP, DOWN).change
    for row in range(3):
        other = change.clone()
        other[row, 1] += 0.25
        assert of_factors(UP, DOWN).compare(of_tensor(other)) == (3.0, 0.25)
    assert of_tensor(change).compare(of_tensor(change.reshape(3, 2, 1, 1))) == (3.0, 0.0)


def test_a_difference_that_is_no_number_is_none_that_is_small() -> None:
    other = of_factors(UP, DOWN).change.clone()
    other[0, 0] = math.nan
    assert math.isnan(of_factors(UP, DOWN).compare(of_tensor(other))[1]) and math.isnan(of_tensor(other).compare(of_factors(UP, DOWN))[0])


def test_zero_is_zero_in_every_row() -> None:
    assert of_tensor(torch.zeros(3, 2)).is_zero and of_tensor(torch.zeros(0, 2)).is_zero
    assert not of_tensor(torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1e-30]])).is_zero


def test_a_dora_is_that_of_its_formula_whatever_the_piece() -> None:
    weight, magnitude = torch.tensor([[3.0, 1.0], [0.0, -2.0], [1.0, 1.0]]), torch.tensor([[10.0], [1.0], [0.5]])
    found = of_dora(of_factors(UP, DOWN), magnitude, (3, 2)).on(lambda: weight)
    changed = weight + UP @ DOWN  # [4, 0], [2, -4], [-2, 4]
    wanted = changed * magnitude / torch.tensor([[4.0], [math.sqrt(20)], [math.sqrt(20)]]) - weight
    assert torch.allclose(found.change, wanted) and found.compare(of_tensor(wanted))[1] < 1e-6


def test_what_was_trained_on_a_weight_is_of_no_other() -> None:
    weight = torch.tensor([[3.0, 1.0], [0.0, -2.0], [1.0, 1.0]])
    trained = of_dora(of_factors(UP, DOWN), torch.ones(3), (3, 2)).trained_on(weight)
    assert not trained.is_zero and trained.size == 3.0
    assert trained.on(lambda: weight.clone()).change.equal(of_dora(of_factors(UP, DOWN), torch.ones(3), (3, 2)).on(lambda: weight).change)
    other = weight.clone()
    other[2, 1] = 1.0000001
    with pytest.raises(JobFailed, match="is not the one that was trained on"):
        trained.on(lambda: other).compare(trained.on(lambda: weight))
