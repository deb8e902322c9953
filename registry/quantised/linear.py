"""A frozen linear layer whose weight is kept in few bits, and made again whenever it is used.

Its parts are buffers: what moves a module between devices moves it too. Between forward and backward nothing of the weight is kept in
full: the gradient of the input is taken through the same weight, made once more (as in QLoRA, Dettmers et al. 2023, eq. 5 and 6).
"""

# B batch, O out-width, I in-width

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from registry.quantised.codings import CODINGS, Coding
from registry.quantised.memory import give_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class QuantisedLinear(nn.Linear):
    """y = W x + b with W of codes and scales. `weight` is the full matrix, made anew at each look, without a gradient."""

    codes: Tensor
    scales: Tensor
    like: Tensor  # empty: its dtype is that of the weight, and changes with the module's

    def __init__(self, layer: nn.Linear, dtype: str) -> None:
        """In place of a layer that has its weight, or will get one by `set_weight` (the layer's is on the meta device until then)."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.dtype_name = dtype
        self.squared_error = self.squared_weight = 0.0  # of the weight that was given
        self.register_parameter("bias", layer.bias)
        self._parameters["weight"] = layer.weight  # type: ignore[assignment]  # a Parameter, or a quantised layer's Tensor
        self._is_hf_initialized = True  # transformers would fill in random numbers

    @property
    def coding(self) -> Coding:
        return CODINGS[self.dtype_name]

    @property
    def shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def set_weight(self, weight: Tensor) -> None:
        """Keep this weight (O, I) from now on; its dtype is that of the products. On the meta device: the sizes alone."""
        if weight.device.type == "meta":
            codes, scales = (torch.empty(size, device="meta") for size in self.coding.sizes(self.shape))
            codes = codes.to(torch.int8 if self.coding.signed else torch.uint8)
        else:
            codes, scales = self.coding.quantise(weight)
        self._parameters.pop("weight", None)
        for name, tensor in (("codes", codes), ("scales", scales)):
            self.register_buffer(name, tensor)
        self.register_buffer("like", torch.empty(0, dtype=weight.dtype, device=weight.device), persistent=False)
        if weight.device.type != "meta":
            self.squared_weight, self.squared_error = self.coding.squares(weight, codes, scales)
            give_back(weight.numel())

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # made of the buffers
        given = self._parameters.get("weight")
        if given is not None:
            return given
        with torch.no_grad():
            return self.coding.dequantise(self.codes, self.scales, self.shape, self.like.dtype)

    @property
    def relative_error(self) -> float:
        """||W' - W|| / ||W|| of the weight that was given; 0 for zeros."""
        return float((self.squared_error / self.squared_weight) ** 0.5) if self.squared_weight else 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ..., O) of (B, ..., I)."""
        kind = inputs.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        product: Tensor = _Product.apply(inputs, self.bias, self)  # type: ignore[no-untyped-call]
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moved and cast like any module, but for the scales, which stay fp32."""
        scales = self._buffers.get("scales")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        moved = self._buffers.get("scales")
        if scales is not None and moved is not None and moved.dtype != scales.dtype:
            self._buffers["scales"] = scales.to(moved.device)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dtype={self.dtype_name}"


class _Room(threading.local):
    """Main memory that one weight after the other is made in: the system would have to find and clear it anew for each."""

    def __init__(self) -> None:
        self.bytes = torch.empty(0, dtype=torch.uint8)

    def of(self, layer: QuantisedLinear, dtype: torch.dtype) -> Tensor:
        """The layer's weight for one product."""
        made, found = layer.like.dtype, None
        if layer.codes.device.type == "cpu":
            needed = layer.coding.numbers(layer.shape) * made.itemsize
            if self.bytes.nbytes < needed:
                self.bytes = torch.empty(0, dtype=torch.uint8)  # first, so that never both are there
                self.bytes = torch.empty(needed, dtype=torch.uint8)
            found = self.bytes
        with torch.no_grad():
            return layer.coding.dequantise(layer.codes, layer.scales, layer.shape, made, room=found).to(dtype)


_ROOM = _Room()


class _Product(torch.autograd.Function):
    """A linear layer that keeps neither its input nor its weight for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, bias: Tensor | None, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(inputs, _ROOM.of(layer, inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        rows = gradient.reshape(-1, gradient.shape[-1])  # (B, O)
        inward = None
        if ctx.needs_input_grad[0]:
            inward = (rows @ _ROOM.of(ctx.layer, gradient.dtype)).reshape(*gradient.shape[:-1], ctx.layer.in_features)
        return inward, rows.sum(0) if ctx.needs_input_grad[1] else None, None
