"""Weights of several layers formed at once: each layer's own product, to rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from train.adapters import stacks as stacks_module
from train.adapters.attach import ADAPTER, adapter_weights
from train.adapters.flat import FlatWeights
from train.adapters.product import compute_in_fewer_operations
from train.adapters.stacks import Stack, forming, stack_layers

ROUNDING = 3e-6  # of the largest number: sums of some hundred products in fp32, added up in another order
LAYERS = 3


class Model(nn.Module):
    """Layers of one shape, and one of another."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.same = nn.ModuleList(nn.Linear(side, side) for _ in range(LAYERS))
        self.other = nn.Linear(side, 8)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.same:
            x = torch.tanh(layer(x))
        result: Tensor = self.other(x)
        return result


def models(side: int = 24, alpha: int = 4) -> tuple[Any, Any, list[Stack], FlatWeights]:
    """A model with LoRA layers, a copy whose weights are in a stack, the stacks and the copy's buffer."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    model = Model(side).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=8, lora_alpha=alpha, target_modules=[*(f"same.{n}" for n in range(LAYERS)), "other"]), model)
    compute_in_fewer_operations(model)
    with torch.no_grad():
        for name, weight in adapter_weights(model):
            if "lora_B" in name:
                weight.normal_(std=0.1)
    stacked = copy.deepcopy(model)
    stacks = stack_layers({"unet": stacked})
    flat = FlatWeights([[weight for _, weight in adapter_weights(stacked)]], stacks)
    return model, stacked, stacks, flat


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in adapter_weights(model)}  # type: ignore[misc]


def same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= ROUNDING * one.abs().max())


@pytest.mark.parametrize("alpha", [8, 4])
def test_outputs_and_gradients_are_those_of_each_layer_by_itself(alpha: int) -> None:
    model, stacked, stacks, flat = models(alpha=alpha)
    assert [len(stack.down) for stack in stacks] == [LAYERS]
    for step in range(2):  # gradients of their own, then in the buffer
        x = torch.randn(2, 16, 24)
        model.zero_grad()
        flat.zero()
        for _ in range(2):  # accumulated
            model(x).square().sum().backward()
            with forming(stacks):
                result = stacked(x)
                assert stacks[0].formed and same(model(x), result)
                result.square().sum().backward()
        flat.collect()
        assert flat.collected and (step == 0 or stacks[0].downs.grad is not None)
        own, found = gradients(model), gradients(stacked)
        assert own.keys() == found.keys() and all(same(own[name], found[name]) for name in own)


def test_passes_add_up_in_the_same_order_before_and_after_the_gradients_are_collected() -> None:
    """A resumed run collects anew: its step has the same bits, also where passes take different ways by their rows."""
    _, stacked, stacks, flat = models(side=160)
    inputs, found = [torch.randn(rows, 160) for rows in (16, 256, 16)], []
    for _ in range(2):
        flat.zero()
        ways = []
        for x in inputs:
            with forming(stacks):
                stacked(x).square().sum().backward()
                ways.append(len(stacks[0].formed[0.5]))
            flat.collect()
        assert ways == [LAYERS, 0, LAYERS]
        found.append({name: gradient.clone() for name, gradient in gradients(stacked).items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_outside_of_a_pass_with_gradients_nothing_is_formed() -> None:
    model, stacked, stacks, _ = models()
    x = torch.randn(2, 16, 24)
    stacked(x)
    with forming(stacks), torch.no_grad():
        stacked(x)
        assert not stacks[0].formed
    with forming(stacks):
        stacked(x)
        assert len(stacks[0].formed[0.5]) == LAYERS
    assert not stacks[0].formed
    with torch.no_grad():
        for name, weight in adapter_weights(model):
            weight.fill_(0.01)
            dict(adapter_weights(stacked))[name].fill_(0.01)
    with forming(stacks):
        assert same(model(x), stacked(x))


def test_each_scale_has_its_weights_and_a_switched_off_adapter_none() -> None:
    model, stacked, stacks, _ = models(alpha=8)
    x = torch.randn(2, 16, 24)
    with forming(stacks):
        for scale in (1.0, -1.0):
            for every in (model, stacked):
                for layer in (*every.same, every.other):
                    layer.scaling[ADAPTER] = scale
            assert same(model(x), stacked(x))
        assert sorted(stacks[0].formed) == [-1.0, 1.0]
        for every in (model, stacked):
            for layer in (*every.same, every.other):
                layer.enable_adapters(False)
        assert torch.equal(model(x), stacked(x))


def test_wide_layers_keep_their_own_way() -> None:
    model, stacked, stacks, flat = models(side=320)
    x = torch.randn(64, 320)
    model(x).square().sum().backward()
    with forming(stacks):
        stacked(x).square().sum().backward()
        assert stacks[0].formed == {0.5: ()}
    flat.collect()
    own, found = gradients(model), gradients(stacked)
    assert flat.collected and all(torch.equal(own[name], found[name]) for name in own)


def test_a_layer_that_is_not_used_has_no_gradient() -> None:
    _, stacked, stacks, flat = models()
    x = torch.randn(2, 16, 24)
    for _ in range(2):
        flat.zero()
        with forming(stacks):
            (stacked.same[0](x) + stacked.same[2](x)).square().sum().backward()
        flat.collect()
        assert not flat.collected
        without = {name.partition(".lora")[0] for name, gradient in gradients(stacked).items() if gradient is None}
        assert without == {"same.1", "other"}


def test_layers_of_one_shape_and_several_scales_have_a_stack_each() -> None:
    model, _, _, _ = models()
    model.same[1].scaling[ADAPTER] = 2.0
    assert [(len(stack.down), stack.down[0] is model.same[0].lora_A[ADAPTER].weight) for stack in stack_layers({"unet": model})] == [
        (2, True)
    ]


def test_gradients_that_an_optimizer_takes_away_or_exchanges_come_back() -> None:
    model, stacked, stacks, flat = models()
    x = torch.randn(2, 16, 24)
    for change in (lambda weight: None, lambda weight: weight.grad * 2, lambda weight: weight.grad):
        flat.zero()
        model.zero_grad()
        model(x).square().sum().backward()
        with forming(stacks):
            stacked(x).square().sum().backward()
        flat.collect()
        own, found = gradients(model), gradients(stacked)
        assert flat.collected and all(same(own[name], found[name]) for name in own)
        for _, weight in adapter_weights(stacked):
            weight.grad = change(weight)


def test_stacks_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models()[0]
    monkeypatch.setattr(stacks_module, "MOST", LAYERS * 24 * 24 * 4 - 1)
    assert stack_layers({"unet": model}) == []
    monkeypatch.setattr(stacks_module, "MOST", LAYERS * 24 * 24 * 4)
    assert len(stack_layers({"unet": model})) == 1
