"""A frozen linear layer whose weight is kept in few bits, and made again whenever it is used.

Its parts are buffers: what moves a module between devices moves it too. Between forward and backward nothing of the weight is kept in
full: the gradient of the input is taken through the same weight, made once more (as in QLoRA, Dettmers et al. 2023, eq. 5 and 6).
"""

# B batch, O out-width, I in-width

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from registry.budget.freed import give_back
from registry.quantised.codings import CODINGS, Coding, Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from registry.quantised.stored import StoredWeight


class _Looks(threading.local):
    shapes_alone = False


_LOOKS = _Looks()


@contextmanager
def shapes_alone() -> Iterator[None]:
    """While it lasts, the weight of a quantised layer is a view of one zero with the shape, dtype and device of the real one.

    For what looks at these alone: peft does as it adds a LoRA, several times a layer, and would have all weights made anew.
    """
    before, _LOOKS.shapes_alone = _LOOKS.shapes_alone, True
    try:
        yield
    finally:
        _LOOKS.shapes_alone = before


class QuantisedLinear(nn.Linear):
    """y = W x + b with W of codes and scales. `weight` is the full matrix, made anew at each look, without a gradient."""

    codes: Tensor
    scales: Tensor
    like: Tensor  # empty: its dtype is that of the weight, and changes with the module's

    def __init__(self, layer: nn.Linear, dtype: str | Kept) -> None:
        """In place of a layer that has its weight, or will get one by `set_weight` (the layer's is on the meta device until then).

        `dtype`: the name of a coding that is made here, or the coding of a file, whose weight `set_stored` gives.
        """
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.coding: Kept = CODINGS[dtype] if isinstance(dtype, str) else dtype
        self.dtype_name = dtype if isinstance(dtype, str) else dtype.title
        self.product: Any = None  # of 8-bit numbers, in place of one with the dequantised weight (products.py)
        self.squared_error = self.squared_weight = 0.0  # of the weight that was given; a file's own codes have no error to tell
        self.register_parameter("bias", layer.bias)
        self._parameters["weight"] = layer.weight  # type: ignore[assignment]  # a Parameter, or a quantised layer's Tensor
        self._is_hf_initialized = True  # transformers would fill in random numbers

    @property
    def shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def set_weight(self, weight: Tensor) -> None:
        """Keep this weight (O, I) from now on; its dtype is that of the products. On the meta device: the sizes alone."""
        coding = self.coding
        assert isinstance(coding, Coding)
        kept = coding.empty(self.shape) if weight.device.type == "meta" else coding.quantise(weight)
        self._keep(kept, weight.dtype)
        if weight.device.type != "meta":
            self.squared_weight, self.squared_error = coding.squares(weight, *kept)
            give_back(weight.numel())

    def set_stored(self, stored: StoredWeight, dtype: torch.dtype) -> None:
        """Keep a file's own codes from now on; `dtype` is that of the products."""
        self._keep(stored.buffers, dtype)

    def _keep(self, buffers: Sequence[Tensor], dtype: torch.dtype) -> None:
        self._parameters.pop("weight", None)
        for name, tensor in zip(self.coding.buffers, buffers, strict=True):
            self.register_buffer(name, tensor)
        self.register_buffer("like", torch.empty(0, dtype=dtype, device=buffers[0].device), persistent=False)

    def change(self, weight: Tensor | None) -> None:
        """Compute with this weight (O, I) instead of the kept one; None: with the kept one again."""
        self._parameters.pop("weight", None)
        if weight is not None:
            self._parameters["weight"] = nn.Parameter(weight.to(self.like), requires_grad=False)

    def made(self, dtype: torch.dtype, *, room: Tensor | None = None) -> Tensor:
        """The kept weight (O, I), rounded from fp32 to `dtype`; in `room`, bytes on the same device, where that is given."""
        return self.coding.make(self.kept, self.shape, dtype, room=room)

    @property
    def kept(self) -> list[Tensor]:
        """What the weight is made of, in the order of the coding's names."""
        return [getattr(self, name) for name in self.coding.buffers]

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # made of the buffers
        given = self._parameters.get("weight")
        if given is not None:
            return given
        if _LOOKS.shapes_alone:
            return torch.zeros(1, dtype=self.like.dtype, device=self.codes.device).expand(self.shape)
        with torch.no_grad():
            return self.made(self.like.dtype)

    @property
    def relative_error(self) -> float:
        """||W' - W|| / ||W|| of the weight that was given; 0 for zeros."""
        return float((self.squared_error / self.squared_weight) ** 0.5) if self.squared_weight else 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ..., O) of (B, ..., I)."""
        kind = inputs.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        changed = self._parameters.get("weight") is not None  # the 8-bit products are of the codes, which no adapter changes
        product: Tensor = (_Product if changed else self.product or _Product).apply(inputs, self.bias, self)
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moved and cast like any module, but for what is kept of the weight, which stays in its dtypes: scales are fp32."""
        kept = {name: tensor for name in self.coding.buffers if (tensor := self._buffers.get(name)) is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in kept.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != tensor.dtype:
                self._buffers[name] = tensor.to(moved.device)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dtype={self.dtype_name}"


class _Room(threading.local):
    """Main memory that one weight after the other is made in: the system would have to find and clear it anew for each."""

    def __init__(self) -> None:
        self.bytes = torch.empty(0, dtype=torch.uint8)

    def of(self, layer: QuantisedLinear, dtype: torch.dtype, kept: Sequence[Tensor]) -> Tensor:
        """The layer's weight for one product, made of what is kept of it."""
        made, found, given = layer.like.dtype, None, layer._parameters.get("weight")
        if given is not None:
            return given.to(layer.codes.device, dtype)
        if torch.compiler.is_compiling() and isinstance(layer.coding, Coding):  # one kernel makes it; where in memory is the compiler's
            with torch.no_grad():
                return layer.coding.in_one(kept, layer.shape).to(made).to(dtype)
        if layer.codes.device.type == "cpu":
            needed = layer.coding.numbers(layer.shape) * made.itemsize
            if self.bytes.nbytes < needed:
                self.bytes = torch.empty(0, dtype=torch.uint8)  # first, so that never both are there
                self.bytes = torch.empty(needed, dtype=torch.uint8)
            found = self.bytes
        with torch.no_grad():
            return layer.coding.make(kept, layer.shape, made, room=found).to(dtype)


_ROOM = _Room()


def keep_layer(ctx: Any, layer: QuantisedLinear) -> None:
    """Have the backward pass of a Function find the layer.

    Compiled code holds what a backward pass reads of an object as it was in the first forward pass, past the hooks of saved tensors
    (`saved_tensor_with_no_vc_check` in torch/_functorch/autograd_function.py): gradient checkpointing, which computes again what those
    hooks ask for, has no part in it, and where blocks are swapped another block's codes lie there by then. So they are saved as tensors.
    """
    ctx.layer = layer
    if torch.compiler.is_compiling():
        ctx.save_for_backward(*layer.kept)


def kept_of(ctx: Any) -> Sequence[Tensor]:
    """What is kept of the layer's weight, in a backward pass."""
    kept: Sequence[Tensor] = ctx.saved_tensors if torch.compiler.is_compiling() else ctx.layer.kept
    return kept


class _Product(torch.autograd.Function):
    """A linear layer that keeps neither its input nor its weight for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, bias: Tensor | None, layer: QuantisedLinear) -> Tensor:
        keep_layer(ctx, layer)
        return functional.linear(inputs, _ROOM.of(layer, inputs.dtype, layer.kept), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        return through_the_weight(ctx, gradients[0])


def through_the_weight(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    """Gradients of input and bias through the dequantised weight."""
    rows = gradient.reshape(-1, gradient.shape[-1])  # (B, O)
    inward = None
    if ctx.needs_input_grad[0]:
        inward = (rows @ _ROOM.of(ctx.layer, gradient.dtype, kept_of(ctx))).reshape(*gradient.shape[:-1], ctx.layer.in_features)
    return inward, rows.sum(0) if ctx.needs_input_grad[1] else None, None
