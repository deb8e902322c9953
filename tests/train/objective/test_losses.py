"""Losses on 2x2 literals: errors 0.5, -0.5, 2 and -4."""

import pytest
import torch

from train.objective.losses import LOSSES, Moments, Schedule, huber, l1, mse, pseudo_huber, pseudo_smooth_l1, smooth_l1

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


def test_pseudo_smooth_l1_is_kohya_s() -> None:
    found = pseudo_smooth_l1(torch.tensor([0.3, 2.0]), torch.zeros(2), c=0.4)
    assert found.tolist() == pytest.approx([0.2, 2 * (4.16**0.5 - 0.4)])  # 2 (sqrt(0.09 + 0.16) - 0.4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_of_half_precision_are_taken_in_fp32(name: str) -> None:
    found = LOSSES[name].function(torch.full((1, 4), 300.0, dtype=torch.float16), torch.zeros(1, 4))
    assert found.dtype == torch.float32 and bool(found.isfinite().all())


def test_a_scheduled_width_is_sd_scripts_at_three_timesteps() -> None:
    """c = 0.1: exponential exp(log(c) t / N), snr (1 - c) / (1 + sigma)^2 + c; the last timestep has no signal."""
    moments = Moments(torch.tensor([0.0, 0.5, 1.0]).view(3, 1), torch.tensor([0.0, 1.0, float("inf")]).view(3, 1))
    errors, zeros = torch.full((3, 1), 2.0), torch.zeros(3, 1)
    widths: dict[Schedule, list[float]] = {"exponential": [1.0, 0.1**0.5, 0.1], "snr": [1.0, 0.9 / 4 + 0.1, 0.1], "constant": [0.1] * 3}
    for schedule, cs in widths.items():
        found = pseudo_huber(errors, zeros, moments, c=0.1, schedule=schedule)
        assert found.flatten().tolist() == pytest.approx([2 * c * ((4 + c * c) ** 0.5 - c) for c in cs])
        found = huber(errors, zeros, moments, delta=0.1, schedule=schedule)
        assert found.flatten().tolist() == pytest.approx([c * (2 - c / 2) for c in cs])
        found = smooth_l1(errors, zeros, moments, beta=0.1, schedule=schedule)
        assert found.flatten().tolist() == pytest.approx([2 - c / 2 for c in cs])
