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


def test_a_saved_state_counts_the_steps_of_each_weight_in_torch() -> None:
    weights = fresh()
    optimizer, flat = flat_optimizer(weights)
    steps(optimizer, weights, range(3), flat)
    for saved in (optimizer.state_dict(), {**optimizer.state_dict(), "state": shared_steps(optimizer)}):
        for other in (torch.optim.AdamW(groups(weights), fused=True), FlatAdamW(groups(weights), fused=True)):
            other.load_state_dict(saved if isinstance(other, FlatAdamW) else optimizer.state_dict())
            steps(other, weights, range(3, 4))
            assert {float(state["step"]) for state in other.state.values()} == {4.0}


def shared_steps(optimizer: FlatAdamW) -> dict[int, dict[str, Any]]:
    """The state as it lies in memory, and in the files of a version that saved it so."""
    return dict(enumerate(optimizer.state[weight] for group in optimizer.param_groups for weight in group["params"]))


def test_a_weight_that_is_used_later_counts_its_own_steps() -> None:
    own, reference = fresh(), fresh()
    optimizer, flat = flat_optimizer(own)
    expected = torch.optim.AdamW(groups(reference), weight_decay=0.1, fused=True)
    for used in (slice(1, None), slice(1, None), slice(None), slice(None)):
        flat.zero()
        expected.zero_grad()
        for weights in (own, reference):
            sum((weight.sin().sum() for group in weights for weight in group[used] or group), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        flat.collect()
        optimizer.step()
        expected.step()
    assert flat.collected and [float(optimizer.state[weight]["step"]) for weight in own[0]] == [2.0, 4.0, 4.0]
    assert all(torch.equal(weight, other) for pair in zip(own, reference, strict=True) for weight, other in zip(*pair, strict=True))
