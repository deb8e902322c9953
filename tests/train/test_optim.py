"""Every optimizer with its options, on one weight against torch's own classes."""

import math
import sys
from typing import Any

import pytest
import torch

from registry.errors import Refused
from train.optim import OPTIMIZERS, adafactor, adamw, evaluation_weights, has_evaluation_weights, sgd, state_numbers


def after_steps(build: Any, count: int = 3, lr: float = 0.1, **options: Any) -> tuple[torch.Tensor, Any]:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    optimizer = build([{"params": [weight]}], lr=lr, **options)
    if has_evaluation_weights(optimizer):
        optimizer.train()
    for _ in range(count):
        weight.grad = 2 * weight.detach()
        optimizer.step()
    return weight.detach(), optimizer


def test_adamw_is_torch_s_with_the_same_bits() -> None:
    actual, _ = after_steps(adamw, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2)
    expected, _ = after_steps(torch.optim.AdamW, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2, fused=True)
    assert torch.equal(actual, expected)


def test_sgd_is_torch_s() -> None:
    actual, _ = after_steps(sgd, momentum=0.5, nesterov=True, weight_decay=0.1)
    expected, _ = after_steps(torch.optim.SGD, momentum=0.5, nesterov=True, weight_decay=0.1)
    assert torch.equal(actual, expected)


def test_adafactor_is_torch_s() -> None:
    actual, _ = after_steps(adafactor, beta2_decay=-0.5, clip_threshold=1.5, weight_decay=0.1)
    expected, _ = after_steps(torch.optim.Adafactor, beta2_decay=-0.5, d=1.5, weight_decay=0.1)
    assert torch.equal(actual, expected)


def test_the_state_is_counted_in_numbers_a_weight() -> None:
    assert state_numbers(after_steps(adamw)[1]) == 2
    assert state_numbers(after_steps(sgd, momentum=0.9)[1]) == 1
    assert state_numbers(after_steps(sgd, momentum=0.0)[1]) == 0


def test_an_optimizer_without_evaluation_weights_is_left_alone() -> None:
    weight, optimizer = after_steps(adamw)
    before = weight.clone()
    with evaluation_weights(optimizer, [weight]):
        assert torch.equal(weight, before)
    assert torch.equal(weight, before)


@pytest.mark.parametrize(("name", "package"), [("prodigy", "prodigyopt"), ("adamw_schedule_free", "schedulefree")])
def test_a_package_that_is_not_installed_is_named_with_its_pip_line(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Refused, match=f"{name} needs the package {package}, which is not installed: pip install {package}"):
        OPTIMIZERS[name].function([{"params": [torch.nn.Parameter(torch.zeros(1))]}], lr=1.0)


def test_prodigy_has_its_authors_options() -> None:
    import prodigyopt

    options: dict[str, Any] = {"d_coef": 2.0, "use_bias_correction": True, "safeguard_warmup": True}
    actual, _ = after_steps(OPTIMIZERS["prodigy"].function, lr=1.0, growth_rate=None, **options)
    expected, _ = after_steps(prodigyopt.Prodigy, lr=1.0, growth_rate=math.inf, **options)
    assert torch.equal(actual, expected)
    assert not torch.equal(actual, after_steps(OPTIMIZERS["prodigy"].function, lr=1.0)[0])


def test_schedule_free_is_used_at_its_average_and_trains_on_to_the_same_bits() -> None:
    weight, optimizer = after_steps(OPTIMIZERS["adamw_schedule_free"].function)
    trained = weight.clone()
    with evaluation_weights(optimizer, [weight]):
        average = weight.clone()
    (state,) = optimizer.state.values()
    torch.testing.assert_close(trained, 0.9 * average + 0.1 * state["z"])  # y = beta x + (1 - beta) z
    assert not torch.equal(average, trained) and torch.equal(weight, trained) and optimizer.param_groups[0]["train_mode"]
