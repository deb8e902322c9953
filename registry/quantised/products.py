"""Products of 8-bit numbers (W8A8): a quantised weight's own codes times activations that are quantised token by token.

int8: y = s_x s_w (q_x Q_w), with q_x = round(x / s_x), s_x = max |x| / 127 of each token and s_w of each row (Dettmers et al. 2022,
LLM.int8(), eq. 4, without its outliers), summed in int32. The gradient of the input is taken in the same way: the row scales are
multiplied into the gradient, whose tokens are then quantised in their turn (as in OneTrainer's W8A8 layers). fp8: e4m3 by
torch._scaled_mm; its gradient goes through the dequantised weight, for e4m3 spans too little for gradients.
"""

# N tokens, O out-width, I in-width

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from registry.errors import Refused
from registry.quantised.codings import FP8_LARGEST, INT8_LARGEST
from registry.quantised.linear import QuantisedLinear, keep_layer, kept_of, through_the_weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from registry.quantised.layers import Choose

MULTIPLES = {"int8": 8, "fp8": 16}  # of the widths, which CUDA's products need
FEWEST = 17  # tokens of CUDA's int8 product
TRIED = 32  # width of the product that a device is tried with


def set_compute(module: nn.Module, kind: str | None) -> int:
    """Have the layers that are kept in this dtype compute in it, where their widths allow; how many do."""
    found = 0
    for layer in module.modules():
        if isinstance(layer, QuantisedLinear):
            layer.product = PRODUCTS[kind] if kind is not None and kind == layer.dtype_name and _fits(layer, kind) else None
            found += layer.product is not None
    return found


def computing_layers(module: nn.Module, choose: Choose, kind: str) -> tuple[int, int]:
    """(Layers that would compute in it, layers that are quantised) of a model that is to be quantised so."""
    layers = [layer for name, layer in module.named_modules() if type(layer) is torch.nn.Linear and choose(name) is not None]
    fitting = [one for one in layers if not any(width % MULTIPLES[kind] for width in (one.out_features, one.in_features))]
    return len(fitting), len(layers)


def _fits(layer: QuantisedLinear, kind: str) -> bool:
    return not any(width % MULTIPLES[kind] for width in layer.shape)


def check_compute(kind: str, device: torch.device) -> None:
    """Raise Refused where the device has no such products, tried with a small one."""
    numbers = torch.ones(TRIED, TRIED, device=device)
    try:
        if kind == "int8":
            codes = numbers.to(torch.int8)
            found = _int_mm(codes, codes.t()).float() * _int_mm(codes, codes).float() / TRIED  # forward and backward pass
        else:
            codes, one = numbers.to(torch.float8_e4m3fn), torch.ones(TRIED, 1, device=device)
            found = torch._scaled_mm(codes, codes.t(), one, one.t(), out_dtype=torch.bfloat16).float()
        right = bool((found == TRIED).all())
    except Exception as error:  # whatever the device's own library raises
        raise Refused(f"compute={kind}: {device} has no products of {kind} ({_first_line(error)}). Leave compute out.") from error
    if not right:
        raise Refused(f"compute={kind}: the products of {kind} on {device} are wrong. Leave compute out.")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def tokens_in_int8(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, I) in int8 and a scale a token (N, 1) in fp32 of tokens (N, I)."""
    scales = tokens.abs().amax(dim=1, keepdim=True).float() / INT8_LARGEST
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    return (tokens / scales).round_().clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8), scales


def _int_mm(codes: Tensor, other: Tensor) -> Tensor:
    """(N, M) in int32 of (N, K) and (K, M) in int8.

    CUDA's product needs more than 16 tokens (fewer are filled up with zeros) and a second matrix that lies by columns: by rows, as a
    weight lies for its backward pass, cublasLt has none for many N (seen on an H200, torch 2.11, CUDA 13.0).
    """
    count = codes.shape[0]
    if codes.device.type != "cuda":
        return torch._int_mm(codes, other)
    if count < FEWEST:
        codes = torch.nn.functional.pad(codes, (0, 0, 0, FEWEST - count))
    by_columns = other if other.stride(0) == 1 else other.t().contiguous().t()
    return torch._int_mm(codes, by_columns)[:count]


class Int8Product(torch.autograd.Function):
    """A linear layer in int8, forwards and backwards, that keeps nothing for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, bias: Tensor | None, layer: QuantisedLinear) -> Tensor:
        keep_layer(ctx, layer)
        codes, scales = tokens_in_int8(inputs.reshape(-1, inputs.shape[-1]))
        product = _int_mm(codes, layer.codes.t()).float().mul_(scales).mul_(layer.scales.t())  # (N, O)
        if bias is not None:
            product += bias
        return product.to(inputs.dtype).reshape(*inputs.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,), layer = gradients, ctx.layer
        rows = gradient.reshape(-1, gradient.shape[-1])  # (N, O)
        inward = None
        if ctx.needs_input_grad[0]:
            weight_codes, weight_scales = kept_of(ctx)
            codes, scales = tokens_in_int8(rows * weight_scales.t())
            product = _int_mm(codes, weight_codes).float().mul_(scales)  # (N, I)
            inward = product.to(gradient.dtype).reshape(*gradient.shape[:-1], layer.in_features)
        return inward, rows.sum(0) if ctx.needs_input_grad[1] else None, None


class Fp8Product(torch.autograd.Function):
    """A linear layer in fp8 forwards, through the dequantised weight backwards."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, bias: Tensor | None, layer: QuantisedLinear) -> Tensor:
        keep_layer(ctx, layer)
        tokens = inputs.reshape(-1, inputs.shape[-1])
        scales = tokens.abs().amax(dim=1, keepdim=True).float() / FP8_LARGEST  # (N, 1)
        scales = torch.where(scales > 0, scales, torch.ones_like(scales))
        codes = (tokens / scales).clamp_(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn)
        weight = layer.codes.view(torch.float8_e4m3fn)
        product = torch._scaled_mm(codes, weight.t(), scales, layer.scales.t(), out_dtype=torch.bfloat16)
        if bias is not None:
            product = product + bias
        return product.to(inputs.dtype).reshape(*inputs.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        return through_the_weight(ctx, gradients[0])


PRODUCTS: dict[str, Any] = {"int8": Int8Product, "fp8": Fp8Product}
