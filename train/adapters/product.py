"""The product of a LoRA layer, y = W x + s B A x, in fewer operations than peft's layer takes, and the same mathematics.

peft computes W x, A x, B (A x), its product with s and the sum one by one, each kept or passed over by autograd. Here a layer takes one
of two ways, by its sizes alone, so that a run computes the same on every machine:

- one weight: W + s B A is formed in each pass, and the layer is one product. Its backward pass forms the gradient of the whole weight,
  (O, I), which is cheap where the rank is not small beside the width;
- factors: s B (A x) is added to W x as it is computed, in one function of autograd, whose backward pass is five products.

Layers of one shape have their weights formed together where a training allows it (train/adapters/stacks.py).

In half precision it is always factors: W + s B A would be rounded to the weight's dtype, and small changes would be lost.
"""

# N rows: tokens or pixels of all images, I in-width (a convolution's kernel with it), O out-width, R rank

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from peft.tuners.lora import Conv2d, Linear
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from registry.quantised.linear import QuantisedLinear
from train.adapters.attach import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor

CALLS = 6e5  # products and sums that the calls of a function of autograd in Python take as long as: about 20 us of a CPU; measured
STACKED_CALLS = 1.5e6  # the same beside a layer whose weight is formed with others; measured at widths of 64 to 640 and ranks of 4 to 64
THIN = 12  # a product with fewer columns than this takes as long as with so many; measured
PASSES = 10  # a weight is written, read and its gradient with it in the time of so many products a number; measured


def compute_in_fewer_operations(module: nn.Module) -> int:
    """Let every plain LoRA layer of peft's in the module take its product so from now on; how many do.

    DoRA, dropout and other variants of peft's keep peft's own product. Weights, names and files stay as they are.
    """
    kinds, count = {Linear: LoraLinear, Conv2d: LoraConv2d}, 0
    for layer in module.modules():
        kind: Any = kinds.get(type(layer))
        if kind is not None and _is_plain(layer):
            layer.__class__ = kind
            count += 1
    return count


def _is_plain(layer: Any) -> bool:
    """Whether it is W x + s B A x of one adapter on a frozen layer, and no more."""
    base = layer.base_layer
    known = type(base) in (nn.Linear, nn.Conv2d, QuantisedLinear) and getattr(base, "groups", 1) == 1
    alone = list(layer.lora_A) == [ADAPTER] and ADAPTER not in layer.lora_variant and not layer.lora_bias[ADAPTER]
    learns = any(weight.requires_grad for weight in base.parameters())
    return (
        known
        and alone
        and not learns
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
        and not getattr(layer, "fan_in_fan_out", False)
    )


def as_one_weight(rows: int, inputs: int, outputs: int, rank: int, *, convolution: bool = False, stacked: bool = False) -> bool:
    """Whether W + s B A takes less time than the factors: multiplications beside W x and its backward pass, in both ways.

    One weight: I O R to form it, N I O for its gradient, 2 I O R for those of the factors. Factors: N R (I + O) in the forward pass
    and twice that in the backward pass. A convolution's factors are convolutions too, without a function in Python. `stacked`: one weight
    of many that are formed at once (train/adapters/stacks.py).
    """
    thin, calls = (1, 0.0) if convolution else (THIN, STACKED_CALLS if stacked else CALLS)
    return inputs * outputs * (rows + 3 * rank + PASSES) <= 3 * rows * max(rank, thin) * (inputs + outputs) + calls


class FormedWeights(Protocol):
    """Weights W + s B A of many layers, formed at once (train/adapters/stacks.py)."""

    def weight(self, number: int, rows: int, scale: float) -> Tensor | None:
        """That of a layer, (O, I); None where the layer is to take its own way."""


class LoraLinear(Linear):  # type: ignore[misc]  # peft has no types
    """peft's layer on a linear one."""

    stack: tuple[FormedWeights, int] | None = None  # that its weight is in, and its number there

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., O) of (..., I)."""
        if self.stack is not None and not (args or kwargs or self.disable_adapters):
            stack, number = self.stack
            formed = stack.weight(number, x.numel() // x.shape[-1], self.scaling[ADAPTER])
            if formed is not None:
                return functional.linear(x, formed, self.base_layer.bias)
        if args or kwargs or self.disable_adapters or self.merged or self.active_adapters != [ADAPTER]:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        base, scale = self.base_layer, self.scaling[ADAPTER]
        down, up = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight  # (R, I), (O, R)
        if isinstance(base, QuantisedLinear):
            added: Tensor = _Added.apply(base(x), x, down, up, scale)  # type: ignore[no-untyped-call]
            return added
        weight = base.weight
        if _is_full(x, weight) and as_one_weight(x.numel() // x.shape[-1], self.in_features, self.out_features, len(down)):
            return functional.linear(x, torch.addmm(weight, up, down, alpha=scale), base.bias)
        result: Tensor = _Factors.apply(x, weight, base.bias, down, up, scale)  # type: ignore[no-untyped-call]
        return result


class LoraConv2d(Conv2d):  # type: ignore[misc]
    """peft's layer on a convolution."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, O, H, W) of (B, I, H, W)."""
        if args or kwargs or self.disable_adapters or self.merged or self.active_adapters != [ADAPTER]:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        base, scale = self.base_layer, self.scaling[ADAPTER]
        down, up = self.lora_A[ADAPTER], self.lora_B[ADAPTER].weight  # (R, I, h, w), (O, R, 1, 1)
        weight = base.weight
        pixels, inputs = x.numel() // x.shape[1] // (base.stride[0] * base.stride[1]), weight.numel() // len(weight)
        whole_is_less = as_one_weight(pixels, inputs, len(weight), len(up), convolution=True)
        if whole_is_less and _is_full(x, weight) and base.padding_mode == "zeros":
            whole = torch.addmm(weight.flatten(1), up.flatten(1), down.weight.flatten(1), alpha=scale).view_as(weight)
            return functional.conv2d(x, whole, base.bias, base.stride, base.padding, base.dilation)
        result: Tensor = base(x)
        dtype = _dtype(x, weight)  # without autocast a convolution takes no input of another dtype than its weight's
        inner = down._conv_forward(x.to(dtype), down.weight.to(dtype), None)  # (B, R, H, W)
        return result.add_(functional.conv2d(inner, (up if scale == 1 else up * scale).to(dtype)))


def _is_full(x: Tensor, weight: Tensor) -> bool:
    """Whether the layer computes in fp32."""
    return _dtype(x, weight) is torch.float32 and weight.dtype is torch.float32


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """What the layer's product is computed in: autocast's dtype, else the weight's."""
    kind = x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return weight.dtype


class _Factors(torch.autograd.Function):
    """W x + b + s B (A x), added up as it is computed. What is kept of the factors is in the product's dtype: each is converted once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
        dtype = _dtype(x, weight)
        ctx.scale, ctx.shape, ctx.dtypes = scale, x.shape, (x.dtype, down.dtype, up.dtype)
        rows = x.reshape(-1, x.shape[-1]).to(dtype)  # (N, I)
        weight, down, up = weight.to(dtype), down.to(dtype), up.to(dtype)
        result = rows @ weight.T if bias is None else torch.addmm(bias.to(dtype), rows, weight.T)  # (N, O)
        inner = rows @ down.T  # (N, R)
        result.addmm_(inner, up.T, alpha=scale)
        ctx.save_for_backward(rows, inner, weight, down, up)
        return result.view(*x.shape[:-1], result.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, weight, down, up = ctx.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1])  # (N, O)
        through = outer @ _scaled(up, ctx.scale)  # (N, R), the gradient of A x
        back = None
        if ctx.needs_input_grad[0]:
            back = (outer @ weight).addmm_(through, down).view(ctx.shape).to(ctx.dtypes[0])
        return back, None, None, *_of_factors(ctx, outer, through, rows, inner), None


class _Added(torch.autograd.Function):
    """y + s B (A x), for a base layer that has its own way to y and back."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        dtype = result.dtype
        ctx.scale, ctx.shape, ctx.dtypes = scale, x.shape, (x.dtype, down.dtype, up.dtype)
        rows, down, up = x.reshape(-1, x.shape[-1]).to(dtype), down.to(dtype), up.to(dtype)  # rows (N, I)
        inner = rows @ down.T  # (N, R)
        ctx.save_for_backward(rows, inner, down, up)
        return torch.addmm(result.reshape(-1, result.shape[-1]), inner, up.T, alpha=scale).view(result.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, down, up = ctx.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1])  # (N, O)
        through = outer @ _scaled(up, ctx.scale)  # (N, R)
        back = (through @ down).view(ctx.shape).to(ctx.dtypes[0]) if ctx.needs_input_grad[1] else None
        return gradient, back, *_of_factors(ctx, outer, through, rows, inner), None


def _of_factors(ctx: Any, outer: Tensor, through: Tensor, rows: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of A (R, I) and of B (O, R), in their dtypes."""
    _, down, up = ctx.dtypes
    return (through.T @ rows).to(down), _scaled((outer.T @ inner).to(up), ctx.scale)


def _scaled(tensor: Tensor, scale: float) -> Tensor:
    return tensor if scale == 1 else tensor * scale
