"""Quantised layers in compiled code: the backward pass reads the codes that gradient checkpointing has found again, wherever they lie."""

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from registry.quantised.linear import QuantisedLinear
from registry.quantised.products import set_compute

WIDTHS = (32, 16)  # I, O


def layer_of(dtype: str, *, compute: bool) -> QuantisedLinear:
    plain = torch.nn.Linear(*WIDTHS)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(*reversed(WIDTHS), generator=torch.Generator().manual_seed(0)))
    layer = QuantisedLinear(plain, dtype).requires_grad_(False)
    layer.set_weight(plain.weight.detach())
    assert set_compute(layer, dtype if compute else None) == compute
    return layer


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "compute"), [("int8", True), ("int8", False), ("nf4", False), ("nf4-dq", False)])
def test_codes_that_lie_elsewhere_in_the_backward_pass_are_read_there(dtype: str, compute: bool) -> None:
    """As in block swap: the codes are in a slot while the layer computes, and another block's numbers are there afterwards.

    torch's compiled code keeps what a Function's backward pass reads of an object as the first forward pass found it, past the hooks of
    saved tensors (torch 2.13, autograd_function.py: saved_tensor_with_no_vc_check).
    """
    layer = layer_of(dtype, compute=compute)
    inputs = torch.randn(4, WIDTHS[0], generator=torch.Generator().manual_seed(1), requires_grad=True)
    (expected,) = torch.autograd.grad(layer(inputs).square().sum(), inputs)
    home = {name: getattr(layer, name).data for name in layer.coding.buffers}
    slots: list[dict[str, torch.Tensor]] = []
    compiled: Any = torch.compile(layer.forward, backend="aot_eager")

    def in_a_slot(given: torch.Tensor) -> torch.Tensor:
        slots.append({name: tensor.clone() for name, tensor in home.items()})
        for name, tensor in slots[-1].items():
            getattr(layer, name).data = tensor
        found: torch.Tensor = compiled(given)
        return found

    outputs = checkpoint(in_a_slot, inputs, use_reentrant=False)
    for tensor in slots[0].values():
        tensor.fill_(7)
    (actual,) = torch.autograd.grad(outputs.square().sum(), inputs)
    assert len(slots) == 2, "computed once more"
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
