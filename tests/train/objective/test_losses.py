"""Losses on 2x2 literals: errors 0.5, -0.5, 2 and -4."""

import pytest
import torch

from train.objective.losses import LOSSES, huber, l1, mse, pseudo_huber, smooth_l1

PREDICTION, TARGET = torch.tensor([[1.5, 0.5], [2.0, -3.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])


def test_mean_square_and_mean_absolute_errors() -> None:
    assert mse(PREDICTION, TARGET).tolist() == [[0.25, 0.25], [4.0, 16.0]]
    assert l1(PREDICTION, TARGET).tolist() == [[0.5, 0.5], [2.0, 4.0]]


def test_huber_is_quadratic_up_to_delta_and_linear_beyond() -> None:
    assert huber(PREDICTION, TARGET, delta=1.0).tolist() == [[0.125, 0.125], [1.5, 3.5]]
    torch.testing.assert_close(huber(PREDICTION, TARGET, delta=3.0), torch.nn.HuberLoss(reduction="none", delta=3.0)(PREDICTION, TARGET))


def test_smooth_l1_is_torch_s() -> None:
    assert smooth_l1(PREDICTION, TARGET, beta=0.5).tolist() == [[0.25, 0.25], [1.75, 3.75]]
    torch.testing.assert_close(
        smooth_l1(PREDICTION, TARGET, beta=3.0), torch.nn.SmoothL1Loss(reduction="none", beta=3.0)(PREDICTION, TARGET)
    )


def test_pseudo_huber_is_kohya_s() -> None:
    expected = [2 * 0.1 * ((error**2 + 0.01) ** 0.5 - 0.1) for error in (0.5, -0.5, 2.0, -4.0)]
    assert pseudo_huber(PREDICTION, TARGET).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_of_half_precision_are_taken_in_fp32(name: str) -> None:
    found = LOSSES[name].function(torch.full((1, 4), 300.0, dtype=torch.float16), torch.zeros(1, 4))
    assert found.dtype == torch.float32 and bool(found.isfinite().all())
