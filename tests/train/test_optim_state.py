"""What a built optimizer holds: rates by group, a state put back, the weights to use, bytes."""

import torch

from tests.train.test_optim import after_steps
from train.optim import OPTIMIZERS, adamw, sgd
from train.optim_state import evaluation_weights, load_state, set_rate, state_bytes


def test_each_group_has_its_factor_of_the_rate() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "rate": rate} for rate in (1.0, 0.25, 16.0)]
    optimizer = adamw([*groups, {"params": [torch.nn.Parameter(torch.zeros(1))]}], lr=1.0)
    set_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.125, 8.0, 0.5]


def test_a_factor_that_a_resume_changed_stays_changed() -> None:
    def built(rate: float) -> torch.optim.Optimizer:
        return adamw([{"params": [torch.nn.Parameter(torch.zeros(1))], "rate": rate}], lr=1.0)

    resumed = built(0.25)
    load_state(resumed, built(0.5).state_dict())
    assert resumed.param_groups[0]["rate"] == 0.25


def test_a_state_keeps_the_precision_it_was_saved_in() -> None:
    _, optimizer = after_steps(adamw)
    saved = optimizer.state_dict()
    saved["state"][0]["exp_avg"] = saved["state"][0]["exp_avg"].bfloat16()
    _, resumed = after_steps(adamw)
    load_state(resumed, saved)
    (state,) = resumed.state.values()
    assert (state["exp_avg"].dtype, state["exp_avg_sq"].dtype) == (torch.bfloat16, torch.float32)


def test_the_state_is_counted_in_bytes_a_weight() -> None:
    assert state_bytes(after_steps(adamw)[1]) == 8
    assert state_bytes(after_steps(sgd, momentum=0.9)[1]) == 4
    assert state_bytes(after_steps(sgd, momentum=0.0)[1]) == 0


def test_an_optimizer_without_evaluation_weights_is_left_alone() -> None:
    weight, optimizer = after_steps(adamw)
    before = weight.clone()
    with evaluation_weights(optimizer, [weight]):
        assert torch.equal(weight, before)
    assert torch.equal(weight, before)


def test_averages_take_the_weights_place_and_give_it_back() -> None:
    weight, optimizer = after_steps(adamw)
    before, average = weight.clone(), torch.full_like(weight, 7.0)
    with evaluation_weights(optimizer, [weight], [average]):
        assert torch.equal(weight, average)
    assert torch.equal(weight, before)


def test_schedule_free_is_used_at_its_average_and_trains_on_to_the_same_bits() -> None:
    weight, optimizer = after_steps(OPTIMIZERS["adamw_schedule_free"].function)
    trained = weight.clone()
    with evaluation_weights(optimizer, [weight]):
        average = weight.clone()
    (state,) = optimizer.state.values()
    torch.testing.assert_close(trained, 0.9 * average + 0.1 * state["z"])  # y = beta x + (1 - beta) z
    assert not torch.equal(average, trained) and torch.equal(weight, trained) and optimizer.param_groups[0]["train_mode"]


def test_prodigy_plus_is_used_at_its_average_too() -> None:
    weight, optimizer = after_steps(OPTIMIZERS["prodigy_plus_schedule_free"].function, lr=1.0, d0=0.1)
    trained = weight.clone()
    with evaluation_weights(optimizer, [weight]):
        average = weight.clone()
    assert not torch.equal(average, trained) and torch.equal(weight, trained) and optimizer.param_groups[0]["train_mode"]
