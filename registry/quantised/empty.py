"""Models without weights as they would be with quantised ones: what they weigh, and copies to trace computations in."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.parts import Parts
from registry.quantised.codings import CODINGS
from registry.quantised.layers import Choose, Quantisation
from registry.quantised.place import quantise_in_place
from registry.quantised.skeleton import keep_stored, stored_layers

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


def quantised_sizes(module: Any, choose: Choose | None) -> dict[int, int]:
    """id of a weight -> the bytes of its codes and scales, of the linear layers of a plain model that are chosen or stored so."""
    from torch import nn

    stored = stored_layers(module)
    found: dict[int, int] = {}
    for name, layer in module.named_modules():
        if type(layer) is nn.Linear:
            dtype = choose(name) if choose is not None else None
            if dtype is not None:
                found[id(layer.weight)] = CODINGS[dtype].bytes_of((layer.out_features, layer.in_features))
            elif name in stored:
                found[id(layer.weight)] = stored[name].nbytes
    return found


def largest_quantised(module: Any, choose: Choose | None) -> int:
    """Numbers of the largest weight that is made of codes; 0 where none is. On a CPU one after the other is made in the same memory."""
    kept = quantised_sizes(module, choose)
    return max((parameter.numel() for parameter in module.parameters() if id(parameter) in kept), default=0)


def stored_bytes(module: Any, itemsize: int, choose: Choose | None) -> int:
    """Bytes of a module's parameters, those of the chosen linear layers in codes and scales."""
    kept = quantised_sizes(module, choose)
    return sum(kept.get(id(parameter), parameter.numel() * itemsize) for parameter in module.parameters())


def quantise_skeleton(parts: Parts, quantised: Quantisation, denoiser: str) -> None:
    """The same layers in a model without weights, so that a trace counts what is made of them in passing."""
    for name, module in {denoiser: parts.denoiser, **parts.text_encoders}.items():
        if (choose := quantised.of(name)) is not None:
            quantise_in_place(module, choose)
        keep_stored(module)


def copied(parts: Parts, dtype: torch.dtype, quantised: Quantisation, denoiser: str) -> Parts:
    """A model without weights in the dtypes of a job, to be changed by a trace."""
    encoders = {name: copy.deepcopy(module) for name, module in parts.text_encoders.items()}
    found = replace(parts, denoiser=copy.deepcopy(parts.denoiser), vae=copy.deepcopy(parts.vae), text_encoders=encoders)
    _cast((found.denoiser, found.vae, *encoders.values()), dtype)
    quantise_skeleton(found, quantised, denoiser)
    return found


def _cast(modules: Iterable[Any], dtype: torch.dtype) -> None:
    for module in modules:
        for weight in (*module.parameters(), *module.buffers()):
            if weight.is_floating_point():
                weight.data = weight.data.to(dtype)  # diffusers' own `to` warns of every cast
