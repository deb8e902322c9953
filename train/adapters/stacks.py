"""LoRA layers of one shape whose weights W + s B A are formed at once: of n layers in one product, and their gradients in two.

A layer that is one weight by itself (train/adapters/product.py) takes three small products and their calls more than a frozen one. Here
its factors and its frozen weight are views of what all layers of its shape have, and it is left with one product in each direction.
"""

# n layers, N rows, I in-width, O out-width, R rank

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from train.adapters.attach import ADAPTER
from train.adapters.product import LoraLinear, as_one_weight

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

MOST = 16 * 2**20  # bytes of frozen weights in stacks: the formed ones and their gradients are kept until the end of a backward pass


@dataclass(eq=False)
class Stack:
    """The weights of layers of one shape. Outside of `forming` nothing is formed: each layer takes its own way."""

    down: Sequence[Parameter]  # n times (R, I)
    up: Sequence[Parameter]  # n times (O, R)
    base: Tensor  # (n, O, I)
    downs: Tensor = field(init=False)  # (n, R, I): a view that holds `down`, and has gradients of its own
    ups: Tensor = field(init=False)  # (n, O, R)
    open: bool = False
    formed: dict[float, Sequence[Tensor]] = field(default_factory=dict)  # scale -> n weights of the pass at hand; none where they cost more
    asked: set[int] = field(default_factory=set)  # layers that had a weight of it in this step

    def weight(self, number: int, rows: int, scale: float) -> Tensor | None:
        """W + scale B A (O, I) of a layer in a pass with gradients; None where the layer's own way takes less time."""
        if not self.open or not torch.is_grad_enabled():
            return None
        if scale not in self.formed:
            outputs, inputs = self.base.shape[1:]
            pays = as_one_weight(rows, inputs, outputs, self.downs.shape[1], stacked=True)
            self.formed[scale] = torch.baddbmm(self.base, self.ups, self.downs, alpha=scale).unbind() if pays else ()
        if not self.formed[scale]:
            return None
        self.asked.add(number)
        return self.formed[scale][number]

    def give_gradients(self) -> None:
        """Add the gradients that the views have of their own to those of the weights that were in use."""
        for view, weights in ((self.downs, self.down), (self.ups, self.up)):
            if view.grad is not None:
                for number in self.asked:
                    own, found = weights[number], view.grad[number]
                    own.grad = found if own.grad is None else own.grad + found
                view.grad = None
        self.asked.clear()


def stack_layers(modules: Mapping[str, nn.Module]) -> list[Stack]:
    """A stack for each shape, rank, scale and component with several plain fp32 LoRA layers; their frozen weights become views of it.

    The first layer that asks in a pass decides by its rows for all of its stack. Stacks of more than MOST bytes are not made.
    """
    found: dict[tuple[Any, ...], list[LoraLinear]] = {}
    for component, module in modules.items():
        for layer in module.modules():
            if isinstance(layer, LoraLinear) and type(layer.base_layer) is nn.Linear and layer.base_layer.weight.dtype is torch.float32:
                shapes = layer.lora_A[ADAPTER].weight.shape, layer.lora_B[ADAPTER].weight.shape
                found.setdefault((component, layer.scaling[ADAPTER], *shapes), []).append(layer)
    stacks, left = [], MOST
    for layers in found.values():
        size = sum(layer.base_layer.weight.nbytes for layer in layers)
        if len(layers) < 2 or size > left:
            continue
        left -= size
        down, up = [layer.lora_A[ADAPTER].weight for layer in layers], [layer.lora_B[ADAPTER].weight for layer in layers]
        stack = Stack(down, up, torch.stack([layer.base_layer.weight.detach() for layer in layers]))
        for number, layer in enumerate(layers):
            layer.base_layer.weight.data = stack.base[number]
            layer.stack = (stack, number)
        stacks.append(stack)
    return stacks


@contextmanager
def forming(stacks: Sequence[Stack]) -> Iterator[None]:
    """A pass and its backward pass, in which the weights stay as they are."""
    for stack in stacks:
        stack.open = True
    try:
        yield
    finally:
        for stack in stacks:
            stack.open = False
            stack.formed.clear()
