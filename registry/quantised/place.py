"""Weights into a model on the meta device, one at a time: a layer that is to be quantised is, before the next weight is read.

What a file has quantised already is kept as it is stored, in linear layers. Other modules (convolutions, embeddings, norms) and weights
that several layers share get the weight itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from registry.quantised.stored import StoredWeight

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from registry.quantised.layers import Choose

    Weights = Iterable[tuple[str, Tensor | StoredWeight]]  # a parameter's or buffer's name, and what it gets


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


def fill(
    module: nn.Module,
    weights: Weights,
    choose: Choose | None,
    *,
    dtype: torch.dtype,
    dtypes: Mapping[str, torch.dtype] | None = None,
    keep: bool = True,
) -> None:
    """Give a model on the meta device its parameters and buffers, quantised where they are chosen or stored so.

    `dtype`, and that of a name in `dtypes`, is what quantised weights are made in. Without `keep` all of
    them are made.
    """
    if choose is not None:
        with_quantised_layers(module, choose)
    single = single_layers(module) if keep else set()
    for name, weight in weights:
        if isinstance(weight, StoredWeight):
            place_stored(module, name, weight, dtype=(dtypes or {}).get(name, dtype), keep=name in single)
        else:
            place(module, name, weight)


def single_layers(module: nn.Module) -> set[str]:
    """The weights of plain linear layers that no other module shares."""
    from torch import nn

    parameters = list(module.named_parameters(remove_duplicate=False))
    seen = Counter(id(weight) for _, weight in parameters)
    shared = {name for name, weight in parameters if seen[id(weight)] > 1}
    return {f"{name}.weight" for name, layer in module.named_modules() if type(layer) is nn.Linear} - shared


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


def place_stored(module: nn.Module, name: str, weight: StoredWeight, *, dtype: torch.dtype, keep: bool) -> None:
    """One quantised weight by its name: kept as it is stored in a plain linear layer, if it may be."""
    from registry.quantised.linear import QuantisedLinear

    inside = name.rpartition(".")[0]
    owner: Any = module.get_submodule(inside)
    if keep:
        layer = QuantisedLinear(owner, weight.coding)
        layer.set_stored(weight, dtype)
        parent, _, own = inside.rpartition(".")
        setattr(module.get_submodule(parent), own, layer)
    else:
        place(module, name, weight.full().to(dtype))
