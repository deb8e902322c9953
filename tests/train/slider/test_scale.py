"""The adapter's factor: exactly opposite signs, and the same gradients where activations are computed twice."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from train.config import TrainConfig
from train.slider.scale import AdapterScale


@pytest.fixture
def state(settings: Callable[..., TrainConfig], prepared: Callable[[TrainConfig], Any]) -> Any:
    found = prepared(settings()).state
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, weight in found.weights:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return found


def products(state: Any) -> dict[str, torch.Tensor]:
    from train.output.export import _products

    return {name: found.change for name, found in _products(state.modules).items()}


def test_minus_one_is_the_exact_opposite_and_it_goes_back(state: Any) -> None:
    scale, plain = AdapterScale(state.modules), products(state)
    with scale.at(-1.0):
        assert all(product.equal(-plain[name]) for name, product in products(state).items())
        with scale.at(2.0):
            assert all(product.equal(2 * plain[name]) for name, product in products(state).items())
        assert all(product.equal(-plain[name]) for name, product in products(state).items())
    assert all(product.equal(plain[name]) for name, product in products(state).items())
    with scale.at(0.0):
        assert not any(bool(product.any()) for product in products(state).values())
    assert all(product.equal(plain[name]) for name, product in products(state).items())


def test_checkpointed_blocks_are_recomputed_at_the_sign_of_their_forward(state: Any) -> None:
    scale = AdapterScale(state.modules)

    def gradients() -> list[torch.Tensor]:
        noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        times, total = torch.tensor([100.0, 900.0]), torch.zeros(())
        for sign, weight in ((1.0, 1.0), (-1.0, 3.0)):
            with scale.at(sign):
                prediction = state.predict(state.model, noisy, times, state.texts.rows([0, 1]))
            total = total + weight * prediction.square().sum()
        return list(torch.autograd.grad(total, [weight for _, weight in state.weights]))

    plain = gradients()
    scale.recompute()
    for one, other in zip(plain, gradients(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
