"""AdamW in buffers: torch's own numbers and state."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from train.adamw import FlatAdamW
from train.adapters.flat import FlatWeights

SHAPES: list[list[tuple[int, ...]]] = [[(3, 16), (5, 3), (7,)], [(4, 4)]]
RATES = (0.01, 0.02)


def fresh() -> list[list[nn.Parameter]]:
    generator = torch.Generator().manual_seed(0)
    return [[nn.Parameter(torch.randn(shape, generator=generator)) for shape in group] for group in SHAPES]


def groups(weights: list[list[nn.Parameter]]) -> list[dict[str, Any]]:
    return [{"params": group, "lr": rate} for group, rate in zip(weights, RATES, strict=True)]


def flat_optimizer(weights: list[list[nn.Parameter]]) -> tuple[FlatAdamW, FlatWeights]:
    optimizer = FlatAdamW(groups(weights), weight_decay=0.1, fused=True)
    optimizer.flat = FlatWeights(weights)
    return optimizer, optimizer.flat


def steps(optimizer: Optimizer, weights: list[list[nn.Parameter]], numbers: range, flat: FlatWeights | None = None) -> None:
    for number in numbers:
        if flat is not None:
            flat.zero()
        else:
            optimizer.zero_grad()
        torch.stack([(weight * (number + 1)).sin().sum() for group in weights for weight in group]).sum().backward()  # type: ignore[no-untyped-call]
        if flat is not None:
            flat.collect()
            assert flat.collected
        optimizer.step()


def test_numbers_and_state_are_torchs() -> None:
    own, reference = fresh(), fresh()
    expected = torch.optim.AdamW(groups(reference), weight_decay=0.1, fused=True)
    optimizer, flat = flat_optimizer(own)
    steps(optimizer, own, range(4), flat)
    steps(expected, reference, range(4))
    for group, others in zip(own, reference, strict=True):
        for weight, other in zip(group, others, strict=True):
            torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-7)
    state, other_state = optimizer.state_dict(), expected.state_dict()
    assert state["state"].keys() == other_state["state"].keys() and state["param_groups"] == other_state["param_groups"]
    for number, values in other_state["state"].items():
        assert state["state"][number].keys() == values.keys()
        for name, value in values.items():
            torch.testing.assert_close(state["state"][number][name], value, rtol=1e-6, atol=1e-8)


def test_a_state_that_is_put_back_goes_on_to_the_bit() -> None:
    straight, stopped = fresh(), fresh()
    optimizer, flat = flat_optimizer(straight)
    steps(optimizer, straight, range(5), flat)
    first, buffer = flat_optimizer(stopped)
    steps(first, stopped, range(2), buffer)
    saved = first.state_dict()
    again, buffer = flat_optimizer(stopped)
    again.load_state_dict(saved)
    steps(again, stopped, range(2, 3), buffer)
    again.load_state_dict(again.state_dict())  # also in the midst of a training
    steps(again, stopped, range(3, 5), buffer)
    for group, others in zip(straight, stopped, strict=True):
        assert all(torch.equal(weight, other) for weight, other in zip(group, others, strict=True))


def test_a_weight_without_a_gradient_stays_as_it_is() -> None:
    weights = fresh()
    optimizer, flat = flat_optimizer(weights)
    kept = weights[0][1].detach().clone()
    for _ in range(2):
        flat.zero()
        torch.stack([weight.sum() for weight in (weights[0][0], weights[0][2], weights[1][0])]).sum().backward()  # type: ignore[no-untyped-call]
        flat.collect()
        optimizer.step()
    assert not flat.collected and torch.equal(weights[0][1], kept) and weights[0][1] not in optimizer.state
