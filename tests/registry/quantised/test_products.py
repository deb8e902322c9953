"""Products of 8-bit numbers: the formula, its gradients, and how far they are from products with the dequantised weight."""

from typing import Any

import pytest
import torch
from torch import nn

from registry.errors import Refused
from registry.quantised import products
from registry.quantised.linear import QuantisedLinear
from registry.quantised.products import check_compute, set_compute, tokens_in_int8

CPU = torch.device("cpu")


def layer_of(kind: str, *, inputs: int = 64, outputs: int = 48, bias: bool = True) -> QuantisedLinear:
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs, bias=bias)
    layer = QuantisedLinear(plain, kind)
    layer.set_weight(plain.weight.detach())
    layer.requires_grad_(False)
    return layer


def test_int8_is_the_formula_on_numbers_that_are_written_out() -> None:
    """x = [127, 63.5] has the scale 1 and the codes [127, 64] (63.5 rounds to even); W's rows have the scales 1 and 0.5."""
    layer = QuantisedLinear(nn.Linear(2, 2, bias=False), "int8")
    layer.set_weight(torch.tensor([[127.0, 1.0], [63.5, -10.0]]))
    assert layer.scales.tolist() == [[1.0], [0.5]] and layer.codes.tolist() == [[127, 1], [127, -20]]
    layer.product = products.Int8Product
    found = layer(torch.tensor([[127.0, 63.5]]))
    assert found.tolist() == [[127.0 * 127 + 64 * 1, (127 * 127 - 64 * 20) * 0.5]]


def test_a_changed_weight_is_computed_with_and_the_codes_again_after_it() -> None:
    """What an adapter changes is no code: W + D is multiplied as it is."""
    layer, tokens = layer_of("int8"), torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    set_compute(layer, "int8")
    before, other = layer(tokens), torch.ones(48, 64)
    layer.change(other)
    assert layer(tokens).equal(nn.functional.linear(tokens, other, layer.bias))
    layer.change(None)
    assert layer(tokens).equal(before)


def test_tokens_have_their_own_scales_and_zeros_stay() -> None:
    codes, scales = tokens_in_int8(torch.tensor([[1.0, -2.0], [0.0, 0.0], [100.0, 50.0]]))
    assert codes.tolist() == [[64, -127], [0, 0], [127, 64]]
    assert scales.flatten().tolist() == pytest.approx([2 / 127, 1.0, 100 / 127])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "forwards", "backwards"), [("int8", 0.01, 0.02), ("fp8", 0.05, 0.006)])
def test_values_and_gradients_are_those_of_the_dequantised_weight_but_for_rounding(
    kind: str, forwards: float, backwards: float, dtype: torch.dtype
) -> None:
    """A token of int8 rounds by 1/254 of its largest number, one of e4m3 by 1/16 of each; bf16 itself by 1/256."""
    layer = layer_of(kind).to(dtype)
    tokens = torch.randn(3, 7, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    upon = torch.randn(3, 7, 48, generator=torch.Generator().manual_seed(2)).to(dtype)

    def passed() -> tuple[torch.Tensor, torch.Tensor]:
        inputs = tokens.clone().requires_grad_()
        found = layer(inputs)
        return found.detach().float(), torch.autograd.grad(found, inputs, upon)[0].float()

    plain, gradient = passed()
    assert set_compute(layer, kind) == 1
    actual, own = passed()
    assert actual.dtype == plain.dtype and 0 < (actual - plain).norm() / plain.norm() < forwards
    assert (own - gradient).norm() / gradient.norm() < backwards
    assert set_compute(layer, None) == 0 and passed()[0].equal(plain)


@pytest.mark.parametrize("tokens", [1, 3, 17])
def test_a_bias_that_learns_has_its_gradient_and_few_tokens_are_products_too(tokens: int) -> None:
    layer = layer_of("int8")
    layer.bias.requires_grad_(True)
    set_compute(layer, "int8")
    upon = torch.randn(tokens, 48)
    (found,) = torch.autograd.grad(layer(torch.randn(tokens, 64)), layer.bias, upon)
    assert torch.allclose(found, upon.sum(0), atol=1e-6)


def test_cuda_gets_enough_tokens_and_a_weight_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool]] = []
    honest = torch._int_mm

    def product(codes: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        seen.append((codes.shape[0], other.stride(0) == 1))
        return honest(codes, other)

    class OnAGpu:  # a tensor that says so
        def __init__(self, codes: torch.Tensor) -> None:
            self.shape, self.device, self.codes = codes.shape, torch.device("cuda"), codes

    monkeypatch.setattr(torch, "_int_mm", product)
    monkeypatch.setattr(torch.nn.functional, "pad", lambda one, sides: torch.constant_pad_nd(one.codes, sides))
    codes, other = torch.ones(3, 8, dtype=torch.int8), torch.ones(8, 8, dtype=torch.int8)
    wrapped: Any = OnAGpu(codes)
    for one in (other, other.t()):  # as a weight lies for the backward pass, and for the forward pass
        assert products._int_mm(wrapped, one).tolist() == [[8] * 8] * 3
    assert seen == [(17, True)] * 2


def test_layers_of_another_dtype_and_of_odd_widths_keep_the_dequantised_weight() -> None:
    model = nn.Sequential(layer_of("int8"), layer_of("nf4", inputs=48), layer_of("int8", inputs=12))
    assert set_compute(model, "int8") == 1
    assert [getattr(layer, "product", None) is not None for layer in model] == [True, False, False]
    assert set_compute(nn.Sequential(layer_of("fp8", inputs=24)), "fp8") == 0, "fp8 needs multiples of 16"


def test_autocast_s_dtype_comes_out() -> None:
    layer = layer_of("int8")
    set_compute(layer, "int8")
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 64)).dtype == torch.bfloat16


def test_a_device_without_these_products_is_refused_by_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compute("int8", CPU)
    check_compute("fp8", CPU)

    def none(*_given: object, **_named: object) -> torch.Tensor:
        raise RuntimeError("_int_mm not compiled for this device\nmore lines")

    monkeypatch.setattr(torch, "_int_mm", none)
    with pytest.raises(Refused, match=r"compute=int8: cpu has no products of int8 \(RuntimeError: _int_mm not compiled for this"):
        check_compute("int8", CPU)
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: torch.zeros(32, 32))
    with pytest.raises(Refused, match="are wrong"):
        check_compute("int8", CPU)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_on_a_gpu_it_is_near_the_dequantised_weight_s_product_or_refused(kind: str) -> None:
    """fp8 needs a card that has it (compute capability 8.9)."""
    device = torch.device("cuda")
    if kind == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        with pytest.raises(Refused, match="has no products of fp8"):
            check_compute(kind, device)
        return
    check_compute(kind, device)
    layer = layer_of(kind).to(device)
    for tokens in (1, 16, 17, 100):
        inputs, upon = torch.randn(tokens, 64, device=device, requires_grad=True), torch.randn(tokens, 48, device=device)
        found = []
        for compute in (None, kind):  # through the dequantised weight, and by products of 8-bit numbers
            set_compute(layer, compute)
            outputs = layer(inputs)
            found.append((outputs, *torch.autograd.grad(outputs, inputs, upon)))
        for (exact, rounded), limit in zip(zip(*found, strict=True), (0.05, 0.02), strict=True):
            assert (exact - rounded).norm() / exact.norm() < limit
