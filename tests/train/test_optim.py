"""Every optimizer with its options, on one weight against torch's own classes."""

import math
import sys
from typing import Any

import pytest
import torch

from registry.errors import Refused
from train.optim import OPTIMIZERS, adafactor, adamw, sgd
from train.optim_state import has_evaluation_weights


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
    scaled, _ = after_steps(adafactor, beta2_decay=-0.5, clip_threshold=1.5, weight_decay=0.1, scale_parameter=True)
    expected, _ = after_steps(torch.optim.Adafactor, beta2_decay=-0.5, d=1.5, weight_decay=0.1)
    assert torch.equal(scaled, expected) and torch.equal(actual, expected), "weights of a root mean square above 1"


def test_adafactor_moves_a_weight_that_is_zero_as_transformers_unscaled_one_does() -> None:
    """LoRA's B is zero at first: scaled by its size it would move a thousand times less."""
    import transformers

    def moved(build: Any, **options: Any) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.zeros(3, 2))
        optimizer = build([{"params": [weight]}], lr=0.01, **options)
        for step in range(3):
            weight.grad = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.1, 1.0]]) * (step + 1)
            optimizer.step()
        return weight.detach()

    unscaled = moved(transformers.Adafactor, relative_step=False, scale_parameter=False, warmup_init=False)
    torch.testing.assert_close(moved(adafactor), unscaled, rtol=1e-5, atol=0)
    torch.testing.assert_close(moved(adafactor, scale_parameter=True), unscaled / 1000, rtol=0.2, atol=0)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("prodigy", "prodigyopt", "prodigyopt"),
        ("adamw_schedule_free", "schedulefree", "schedulefree"),
        ("prodigy_plus_schedule_free", "prodigyplus", "prodigy-plus-schedule-free"),
        ("lion", "lion_pytorch", "lion_pytorch"),
        ("came", "came_pytorch", "came_pytorch"),
        ("muon", "adv_optm", "adv_optm"),
        ("adamw8bit", "bitsandbytes", "bitsandbytes"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_pip_line(
    name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Refused, match=f"{name} needs the package {package}, which is not installed: pip install {package}"):
        OPTIMIZERS[name].function([{"params": [torch.nn.Parameter(torch.zeros(1))]}], lr=1.0)


def test_prodigy_has_its_authors_options() -> None:
    import prodigyopt

    options: dict[str, Any] = {"d_coef": 2.0, "use_bias_correction": True, "safeguard_warmup": True}
    actual, _ = after_steps(OPTIMIZERS["prodigy"].function, lr=1.0, growth_rate=None, **options)
    expected, _ = after_steps(prodigyopt.Prodigy, lr=1.0, growth_rate=math.inf, **options)
    assert torch.equal(actual, expected)
    assert not torch.equal(actual, after_steps(OPTIMIZERS["prodigy"].function, lr=1.0)[0])


def test_the_others_are_their_packages_own() -> None:
    import came_pytorch
    import lion_pytorch
    import prodigyplus

    rows: list[tuple[str, dict[str, Any], Any, dict[str, Any]]] = [
        ("lion", {"weight_decay": 0.1}, lion_pytorch.Lion, {"weight_decay": 0.1}),
        ("came", {"betas": (0.8, 0.9), "beta3": 0.99}, came_pytorch.CAME, {"betas": (0.8, 0.9, 0.99)}),
        ("prodigy_plus_schedule_free", {"d0": 1e-3}, prodigyplus.ProdigyPlusScheduleFree, {"d0": 1e-3, "split_groups": False}),
    ]
    for name, options, peer, peer_options in rows:
        actual, expected = after_steps(OPTIMIZERS[name].function, **options)[0], after_steps(peer, **peer_options)[0]
        assert torch.equal(actual, expected), name


def test_muon_takes_every_matrix_whatever_its_rank_and_adamw_the_vectors() -> None:
    """Left to itself adv_optm gives matrices with a side below 4, and those over 128 times longer than wide, to AdamW."""
    matrix, vector = torch.nn.Parameter(torch.zeros(2, 512)), torch.nn.Parameter(torch.zeros(8))
    optimizer = OPTIMIZERS["muon"].function([{"params": [matrix, vector], "rate": 0.5}], lr=0.1)
    assert [(group["use_muon"], group["rate"], len(group["params"])) for group in optimizer.param_groups] == [
        (True, 0.5, 1),
        (False, 0.5, 1),
    ]
    matrix.grad, vector.grad = torch.randn(2, 512, generator=torch.Generator().manual_seed(0)), torch.ones(8)
    optimizer.step()
    singular = torch.linalg.svdvals(matrix.detach())
    assert float(singular[0] / singular[1]) < 1.5, "an update that is nearly orthogonal"
    assert optimizer.state[matrix]["is_muon"] and not optimizer.state[vector]["is_muon"]
