"""An adapter beside one linear or convolution layer, in the tensors of the file that the runtimes read."""

# B batch, O out-width, I in-width (a convolution's kernel with it)

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from torch.nn import functional

from train.adapters.delta import Delta, DeltaOfWeight, of_whole

if TYPE_CHECKING:
    from torch import Tensor


class AdapterLayer(nn.Module, ABC):
    """y = W x + D x, with D made of its fp32 parameters, whose names are the endings of the file's keys."""

    def __init__(self, base: Any, *, rank: int, scale: float) -> None:
        super().__init__()
        self.base_layer = base
        self.rank = rank
        self.scale = scale
        self.enabled = True
        self.shape = tuple(base.weight.shape)

    def __getattr__(self, name: str) -> Any:
        """What models ask of a layer beside its output (weight, bias, in_features): the base's own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)

    def forward(self, inputs: Tensor, *more: Any) -> Tensor:
        """The layer's output, (B, ..., O) or (B, O, H, W)."""
        result: Tensor = self.base_layer(inputs, *more)
        return self.changed(inputs, result) if self.enabled else result

    def changed(self, inputs: Tensor, result: Tensor) -> Tensor:
        """The base's output with the adapter's added."""
        return result + self.apply_weight(inputs, self.delta()).to(result.dtype)

    def apply_weight(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """The layer's output with another weight and without a bias, in the dtype of the base."""
        base = self.base_layer
        weight = weight.to(inputs.dtype)
        if isinstance(base, nn.Conv2d):
            padding = base.padding
            return functional.conv2d(inputs, weight, None, base.stride, padding, base.dilation, base.groups)
        return functional.linear(inputs, weight)

    @abstractmethod
    def delta(self) -> Tensor:
        """What is added to the weight at strength 1, in its shape, fp32."""

    def change(self) -> Delta | DeltaOfWeight:
        """The same, to be made of the numbers as they are now without the layer below, on the CPU."""
        kept = self.without_base()
        return of_whole(lambda: kept.delta().float(), self.shape)

    def without_base(self) -> Self:
        """A copy with numbers of its own on the CPU, and without the layer below."""
        found = copy.copy(self)
        found._parameters = {
            name: nn.Parameter(weight.detach().cpu().clone(), requires_grad=False) for name, weight in self.named_parameters(recurse=False)
        }
        found._buffers = {name: tensor.detach().cpu().clone() for name, tensor in self.named_buffers(recurse=False)}
        found._modules = {}
        return found

    def delta_norm(self) -> float:
        """The Frobenius norm of the delta."""
        return float(self.delta().float().norm())

    @abstractmethod
    def file_tensors(self) -> dict[str, Tensor]:
        """Ending of the key -> tensor, all that the delta is made of."""

    def load_file_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the numbers of `file_tensors`."""
        with torch.no_grad():
            for name, weight in self.named_parameters(recurse=False):
                weight.copy_(tensors[f".{name}"].reshape(weight.shape))

    def use_parameters(self) -> None:
        """Use the parameters again where a file's numbers are in use."""

    def _numbers(self) -> dict[str, Tensor]:
        """The parameters by their endings."""
        return {f".{name}": weight.detach() for name, weight in self.named_parameters(recurse=False)}

    def _alpha(self, alpha: float) -> dict[str, Tensor]:
        return {".alpha": torch.tensor(float(alpha))}

    def _weight(self, name: str, *shape: int) -> nn.Parameter:
        """A parameter of zeros beside the base's weight."""
        weight = nn.Parameter(torch.zeros(shape, device=self.base_layer.weight.device, dtype=torch.float32))
        self.register_parameter(name, weight)
        return weight


def product_norm(up: Tensor, down: Tensor) -> float:
    """||B A|| of B (O, R) and A (R, I), in float64: sqrt(sum((B^T B) * (A A^T))), without making the product."""
    up, down = up.detach().cpu().double(), down.detach().cpu().double()
    return math.sqrt(max(0.0, float(((up.T @ up) * (down @ down.T)).sum())))


def draw(weight: Tensor, generator: torch.Generator, deviation: float) -> None:
    """Fill a parameter from a normal distribution, the same numbers on every device; nothing on the meta device."""
    if weight.device.type != "meta":
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)


def adapter_layers(module: Any) -> Iterator[tuple[str, AdapterLayer]]:
    """The layers of a model that have an adapter of ours, by name."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, AdapterLayer))
