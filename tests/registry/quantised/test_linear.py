"""The quantised layer: its products and gradients, what it keeps between them, casts and moves."""

import copy

import pytest
import torch
from torch import nn

from registry.quantised.codings import CODINGS
from registry.quantised.linear import QuantisedLinear, shapes_alone


def layers(dtype: str, *, bias: bool = True) -> tuple[QuantisedLinear, nn.Linear]:
    """A quantised layer, and a plain one with its dequantised weight."""
    torch.manual_seed(0)
    plain = nn.Linear(64, 48, bias=bias).requires_grad_(False)
    found = QuantisedLinear(plain, dtype)
    found.set_weight(plain.weight.detach())
    same = copy.deepcopy(plain)
    same.weight.data = found.weight
    return found, same


@pytest.mark.parametrize("dtype", list(CODINGS))
@pytest.mark.parametrize("bias", [False, True])
def test_products_and_gradients_are_the_dequantised_weights(dtype: str, bias: bool) -> None:
    found, same = layers(dtype, bias=bias)
    inputs = torch.randn(2, 5, 64)
    one, other = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    left, right = found(one), same(other)
    assert torch.equal(left, right)
    (left.square().sum(), right.square().sum())[0].backward()
    right.square().sum().backward()
    assert one.grad is not None and other.grad is not None and torch.allclose(one.grad, other.grad, rtol=0, atol=1e-5)


def test_neither_weight_nor_input_is_kept_for_the_backward_pass() -> None:
    found, same = layers("nf4")
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    inputs = torch.randn(5, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found(inputs)
        assert kept == []
        same(inputs)
        assert sum(kept) >= same.weight.nbytes  # the hook does see what a plain layer keeps


def test_autocast_computes_in_its_dtype_as_in_a_plain_layer() -> None:
    found, same = layers("int8")
    inputs = torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = found(inputs), same(inputs)
    assert one.dtype == torch.bfloat16 and torch.equal(one, other)


def test_a_cast_leaves_codes_and_scales_alone() -> None:
    found, _ = layers("int8")
    codes, scales = found.codes.clone(), found.scales.clone()
    found.to(torch.bfloat16)
    assert found.weight.dtype == torch.bfloat16 and torch.equal(found.codes, codes) and torch.equal(found.scales, scales)
    found.to("meta")
    assert {tensor.device.type for tensor in (found.codes, found.scales, found.like, found.weight)} == {"meta"}


def test_it_is_a_linear_layer_to_others_with_a_frozen_weight_that_is_no_parameter() -> None:
    found, same = layers("fp8")
    assert isinstance(found, nn.Linear) and [name for name, _ in found.named_parameters()] == ["bias"]
    assert found.weight.shape == same.weight.shape and not found.weight.requires_grad
    assert 0.02 < found.relative_error < 0.03 and "dtype=fp8" in repr(found)


def test_what_looks_at_shapes_alone_has_no_weight_made() -> None:
    found, same = layers("nf4")
    with shapes_alone():
        seen = found.weight
        assert (seen.shape, seen.dtype, seen.device) == (same.weight.shape, same.weight.dtype, same.weight.device)
        assert seen.untyped_storage().nbytes() == 4
    assert found.weight.equal(same.weight)
