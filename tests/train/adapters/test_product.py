"""The product of LoRA layers in fewer operations: peft's own layer, to rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from registry.quantised.linear import QuantisedLinear
from tests.tiny import tiny_parts
from train.adapters.attach import ADAPTER, adapter_weights, switch
from train.config import LoraConfig, TrainConfig
from train.lora import add_loras, enable_gradient_checkpointing, lora_tensors, targets_of

ROUNDING = 3e-6  # of the largest number: sums of some hundred products in fp32, added up in another order


def pair(layer: nn.Module, **settings: Any) -> tuple[Any, Any]:
    """peft's layer and fewer on copies of one layer, with B away from zero."""
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    from train.adapters.product import compute_in_fewer_operations

    model = nn.Sequential(layer).requires_grad_(False)
    torch.manual_seed(1)
    inject_adapter_in_model(PeftConfig(target_modules=["0"], **settings), model)
    adapted: Any = model[0]
    nn.init.normal_(adapted.lora_B[ADAPTER].weight, std=0.1)
    other = copy.deepcopy(model)
    assert compute_in_fewer_operations(other) == 1
    return model, other


def outcome(model: Any, inputs: Tensor, gradient: Tensor, *, learns: bool = True) -> dict[str, Tensor]:
    """Output, and gradients of the input and of both factors."""
    own = inputs.clone().requires_grad_(learns)
    result = model(own)
    result.backward(gradient)
    layer = model[0]
    found = {"output": result.detach(), "A": layer.lora_A[ADAPTER].weight.grad, "B": layer.lora_B[ADAPTER].weight.grad}
    return found | ({"input": own.grad} if learns else {})


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    assert one.keys() == other.keys()
    assert all(one[name].dtype == other[name].dtype and one[name].shape == other[name].shape for name in one)
    return {name: float((one[name].double() - other[name].double()).abs().max() / one[name].double().abs().max()) for name in one}


LINEAR = [
    # rows, inputs, outputs, rank, alpha
    (64, 24, 40, 8, 8),
    (64, 24, 40, 8, 3),
    (6, 320, 200, 4, 4),
    (6, 320, 200, 4, 10),
    (1, 256, 256, 2, 1),
]


@pytest.mark.parametrize(("rows", "inputs", "outputs", "rank", "alpha"), LINEAR)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stabilised", [False, True])
def test_a_linear_layer_is_pefts(rows: int, inputs: int, outputs: int, rank: int, alpha: int, bias: bool, stabilised: bool) -> None:
    from train.adapters.product import LoraLinear, as_one_weight

    torch.manual_seed(0)
    peft, fewer = pair(nn.Linear(inputs, outputs, bias=bias), r=rank, lora_alpha=alpha, use_rslora=stabilised)
    assert type(fewer[0]) is LoraLinear and as_one_weight(rows, inputs, outputs, rank) == (rows == 64)
    for shape in ((rows, inputs), (2, rows // 2, inputs), (1, rows, 1, inputs)) if rows > 1 else ((1, inputs),):
        x = torch.randn(shape)
        gradient = torch.randn(*shape[:-1], outputs)
        for model in (peft, fewer):
            model.zero_grad()
        found = differences(outcome(peft, x, gradient), outcome(fewer, x, gradient))
        assert max(found.values()) < ROUNDING, found


@pytest.mark.parametrize("width", [24, 320])
def test_inputs_without_gradients_and_in_another_order_of_memory(width: int) -> None:
    torch.manual_seed(0)
    peft, fewer = pair(nn.Linear(width, width), r=4, lora_alpha=8)
    x, gradient = torch.randn(2, width, 8).transpose(1, 2), torch.randn(2, width, 8).transpose(1, 2)
    found = differences(outcome(peft, x, gradient, learns=False), outcome(fewer, x, gradient, learns=False))
    assert max(found.values()) < ROUNDING, found


@pytest.mark.parametrize(("channels", "kernel", "stride"), [(8, 3, 1), (8, 1, 1), (96, 3, 2), (96, 1, 1)])
@pytest.mark.parametrize("alpha", [4, 6])
def test_a_convolution_is_pefts(channels: int, kernel: int, stride: int, alpha: int) -> None:
    from train.adapters.product import LoraConv2d, as_one_weight

    torch.manual_seed(0)
    layer = nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2)
    peft, fewer = pair(layer, r=4, lora_alpha=alpha)
    assert type(fewer[0]) is LoraConv2d
    assert as_one_weight(2 * (8 // stride) ** 2, channels * kernel**2, channels, 4, convolution=True) == (channels == 8)
    side = 8 // stride
    x, gradient = torch.randn(2, channels, 8, 8), torch.randn(2, channels, side, side)
    found = differences(outcome(peft, x, gradient), outcome(fewer, x, gradient))
    assert max(found.values()) < ROUNDING, found


def test_a_quantised_layer_is_pefts() -> None:
    from train.adapters.product import LoraLinear

    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    quantised = QuantisedLinear(layer, "int8")
    quantised.set_weight(layer.weight.detach())
    peft, fewer = pair(quantised, r=4, lora_alpha=8)
    assert type(fewer[0]) is LoraLinear
    x, gradient = torch.randn(2, 5, 64), torch.randn(2, 5, 48)
    found = differences(outcome(peft, x, gradient), outcome(fewer, x, gradient))
    assert max(found.values()) < ROUNDING, found


@pytest.mark.parametrize("layer", [nn.Linear(24, 40), nn.Conv2d(8, 8, 3, padding=1)], ids=["linear", "convolution"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_fp32_as_pefts(layer: nn.Module, dtype: torch.dtype) -> None:
    """The base in half precision under autocast, as runs have it; the factors are never rounded into its weight."""
    torch.manual_seed(0)
    exact, _ = pair(copy.deepcopy(layer).to(dtype).float(), r=4, lora_alpha=8)
    peft, fewer = pair(copy.deepcopy(layer).to(dtype), r=4, lora_alpha=8)
    for model in (peft, fewer):
        for _, weight in adapter_weights(model):
            weight.data = weight.data.float()
        model.load_state_dict({name: tensor for name, tensor in exact.state_dict().items() if "lora_" in name}, strict=False)
    shape = (2, 32, 24) if isinstance(layer, nn.Linear) else (2, 8, 8, 8)
    x = torch.randn(shape).to(dtype).float()
    gradient = torch.randn_like(exact(x)).to(dtype)
    truth = outcome(exact, x, gradient.float())

    def errors(model: Any) -> dict[str, float]:
        with torch.autocast("cpu", dtype):
            found = outcome(model, x, gradient)
        assert found["output"].dtype == dtype and found["A"].dtype == torch.float32
        return {name: float((truth[name] - found[name].float()).abs().mean() / truth[name].abs().mean()) for name in truth}

    own, other = errors(fewer), errors(peft)
    assert all(own[name] < 1.25 * other[name] for name in own), (own, other)


@pytest.mark.parametrize("layer", [nn.Linear(24, 40), nn.Conv2d(8, 8, 3, padding=1)], ids=["linear", "convolution"])
def test_half_precision_needs_no_autocast(layer: nn.Module) -> None:
    """The proof of a saved file and the previews of a run predict without it: the numbers of autocast, to the bit."""
    _, fewer = pair(copy.deepcopy(layer).to(torch.bfloat16), r=4, lora_alpha=3)
    for _, weight in adapter_weights(fewer):
        weight.data = weight.data.float()
    x = torch.randn((2, 32, 24) if isinstance(layer, nn.Linear) else (2, 8, 8, 8)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        expected = fewer(x)
    assert expected.dtype == torch.bfloat16 and fewer(x).equal(expected)


def test_gradients_are_those_of_the_formula_in_float64() -> None:
    from train.adapters.product import _Added, _Factors

    torch.manual_seed(0)
    x, down, up = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5), (2, 5), (4, 2)))
    weight, bias = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    result = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    of_factors: Any = _Factors.apply
    of_added: Any = _Added.apply
    factors: Callable[..., Tensor] = lambda x, down, up: of_factors(x, weight, bias, down, up, 0.7)
    added: Callable[..., Tensor] = lambda result, x, down, up: of_added(result, x, down, up, 0.7)
    assert torch.allclose(factors(x, down, up), x @ (weight + 0.7 * up @ down).T + bias)
    assert torch.autograd.gradcheck(factors, (x, down, up))
    assert torch.autograd.gradcheck(added, (result, x, down, up))


def test_the_way_of_a_layer() -> None:
    from train.adapters.product import as_one_weight

    assert as_one_weight(256, 64, 64, 16)  # of the embedded base
    assert as_one_weight(1024, 320, 320, 64)
    assert not as_one_weight(1024, 320, 320, 16)
    assert not as_one_weight(77, 768, 320, 16)  # states of texts
    assert not as_one_weight(4096, 640, 640, 32)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}], ids=str)
def test_what_is_no_plain_lora_keeps_pefts_product(settings: dict[str, Any]) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model
    from peft.tuners.lora import Conv2d, Linear

    from train.adapters.product import compute_in_fewer_operations

    model = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(8, 8, 3)).requires_grad_(False)
    inject_adapter_in_model(PeftConfig(r=2, target_modules=["0", "1"], **settings), model)
    assert compute_in_fewer_operations(model) == 0
    assert type(model[0]) is Linear and type(model[1]) is Conv2d


@pytest.mark.parametrize("kind", ["dora", "lokr", "loha", "oft"])
def test_other_kinds_of_adapters_are_as_they_were(kind: str) -> None:
    from train.adapters.product import LoraConv2d, LoraLinear

    family, parts = tiny_parts("sd1")
    add_loras(family, {family.denoiser: parts.denoiser}, TrainConfig(lora=LoraConfig(kind=kind, rank=2)), targets_of(family, "attention"))
    assert not [layer for layer in parts.denoiser.modules() if isinstance(layer, (LoraLinear, LoraConv2d))]


def test_disabled_adapters_are_the_base() -> None:
    layer = nn.Linear(24, 24)
    x = torch.randn(3, 24)
    _, fewer = pair(layer, r=4, lora_alpha=4)
    switch(fewer, on=False)
    assert torch.equal(fewer(x), layer(x))
    switch(fewer, on=True)
    assert not torch.equal(fewer(x), layer(x))


def test_a_scale_that_changes_is_followed() -> None:
    """Sliders set the scale of every layer between passes."""
    peft, fewer = pair(nn.Linear(24, 24), r=4, lora_alpha=4)
    x = torch.randn(3, 24)
    for model in (peft, fewer):
        model[0].scale_layer(-2.5)
    assert torch.allclose(peft(x), fewer(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "sdxl", "flux1"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_whole_denoiser_learns_the_same(name: str, checkpointing: bool) -> None:
    """Prediction and gradients of every factor with both products; the tensors of the file are the same to the bit."""
    from train.adapters.product import LoraConv2d, LoraLinear

    found = []
    for product in ("plain", "auto"):
        family, parts = tiny_parts(name)
        config = TrainConfig(lora=LoraConfig(rank=2, alpha=3.0, product=product))
        torch.manual_seed(3)
        weights = [
            pair
            for group in add_loras(family, {family.denoiser: parts.denoiser}, config, targets_of(family, "attention")).values()
            for pair in group
        ]
        start = {key: tensor.clone() for key, tensor in lora_tensors({family.denoiser: parts.denoiser}).items()}
        generator = torch.Generator().manual_seed(5)
        for key, weight in weights:
            if ".lora_B" in key:
                weight.data = torch.randn(weight.shape, generator=generator) * 0.05
        if checkpointing:
            enable_gradient_checkpointing(parts.denoiser)
        parts.denoiser.train()
        side = 8 * parts.latent_factor
        noisy = torch.randn(2, family.channels(parts), 8, 8, generator=generator)
        with torch.no_grad():
            states = family.encode_prompts(parts, ["a dog", "a cat"])
        complete = family.complete(parts, states, height=side, width=side, guidance=1.0)
        prediction = family.predict(parts, noisy, torch.tensor([500.0, 20.0]), complete)
        prediction.square().mean().backward()
        gradients = {key: weight.grad for key, weight in weights}
        changed = sum(isinstance(layer, (LoraLinear, LoraConv2d)) for layer in parts.denoiser.modules())
        assert changed == (0 if product == "plain" else len(weights) // 2)
        found.append((start, {"prediction": prediction.detach(), **gradients}))
    (start, plain), (other_start, auto) = found
    assert start.keys() == other_start.keys() and all(torch.equal(start[key], other_start[key]) for key in start)
    largest = max(float(tensor.abs().max()) for key, tensor in plain.items() if key != "prediction" and tensor is not None)
    assert torch.allclose(plain["prediction"], auto["prediction"], rtol=0, atol=1e-5 * float(plain["prediction"].abs().max()))
    for key in plain.keys() - {"prediction"}:
        assert torch.allclose(plain[key], auto[key], rtol=0, atol=2e-5 * largest), key
