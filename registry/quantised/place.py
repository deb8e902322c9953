"""Tensors into a model on the meta device, one at a time: a layer that is to be quantised is, before the next tensor is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.formats.atomic_file import torch_dtype
from registry.formats.safetensors_header import read_header

if TYPE_CHECKING:
    from torch import Tensor, nn

    from registry.quantised.layers import Choose


def with_quantised_layers(module: Any, choose: Choose) -> None:
    """Put quantised layers in place of the chosen ones. They have no numbers as yet; weights that several layers share are left."""
    from torch import nn

    from registry.quantised.linear import QuantisedLinear

    seen = [id(weight) for _, weight in module.named_parameters(remove_duplicate=False)]
    for name, layer in list(module.named_modules()):
        dtype = choose(name) if type(layer) is nn.Linear else None
        if dtype is not None and seen.count(id(layer.weight)) == 1:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, QuantisedLinear(layer, dtype))


def quantise_in_place(module: Any, choose: Choose) -> None:
    """Quantise the chosen layers of a model that has its weights, or none (on the meta device)."""
    from registry.quantised.linear import QuantisedLinear

    with_quantised_layers(module, choose)
    for layer in module.modules():
        if isinstance(layer, QuantisedLinear) and "weight" in layer._parameters:
            layer.set_weight(layer.weight.detach())


def fill(module: nn.Module, tensors: Iterable[tuple[str, Tensor]], choose: Choose) -> None:
    """Give a model on the meta device its parameters and buffers, quantised where they are chosen."""
    with_quantised_layers(module, choose)
    for name, tensor in tensors:
        place(module, name, tensor)


def place(module: nn.Module, name: str, tensor: Tensor) -> None:
    """One parameter or buffer by its name."""
    from torch import nn

    from registry.quantised.linear import QuantisedLinear

    inside, _, last = name.rpartition(".")
    owner = module.get_submodule(inside)
    if isinstance(owner, QuantisedLinear) and last == "weight":
        owner.set_weight(tensor)
    elif last in owner._buffers:
        owner._buffers[last] = tensor
    else:
        owner._parameters[last] = nn.Parameter(tensor, requires_grad=False)


@contextmanager
def reading(path: Path) -> Iterator[Callable[[str], Tensor]]:
    """A safetensors file's tensors by key, each read into memory of its own: a mapped file would fill it with what was read before."""
    import torch

    header = read_header(path)
    with open(path, "rb") as file:

        def read(key: str) -> Tensor:
            info, (begin, end) = header.tensors[key], header.offsets[key]
            tensor = torch.empty(info.shape, dtype=torch_dtype(info.dtype))
            if tensor.nbytes != end - begin:
                raise OSError(f"{path} has {end - begin} bytes for {key}, and {tensor.nbytes} were expected.")
            file.seek(header.data_start + begin)
            place: Any = tensor.reshape(-1).view(torch.uint8).numpy()
            if tensor.nbytes and file.readinto(place) != tensor.nbytes:
                raise OSError(f"{path} ends inside {key}.")
            return tensor

        yield read
