"""The Frobenius norm of what an adapter adds to each weight, from its factors.

||s B A||^2 = s^2 sum((B^T B) * (A A^T)), two matrices of R x R: the product of the factors is not made.
"""

# R rank, O out-width, I in-width (a convolution's kernel with it)

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from train.adapters.attach import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor


def change_norms(module: Any) -> Iterator[tuple[str, Any, float]]:
    """(layer, its base weight, norm of what the adapter adds to it) of every layer with an adapter."""
    import torch
    from peft.tuners.lora import LoraLayer

    from train.adapters.layer import adapter_layers

    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, LoraLayer) and layer.lora_A:
                yield name, layer.get_base_layer().weight, _of_peft(layer)
        for name, own in adapter_layers(module):
            yield name, own.base_layer.weight, own.delta_norm()


def _of_peft(layer: Any) -> float:
    """s ||B A||; of a DoRA the norm of m V / ||V|| - W with V = W + s B A, each row by itself."""
    from train.adapters.layer import product_norm

    down, up = (part[ADAPTER].weight.detach().flatten(1).float() for part in (layer.lora_A, layer.lora_B))
    scale = float(layer.scaling[ADAPTER])
    if ADAPTER not in getattr(layer, "lora_magnitude_vector", {}):
        return abs(scale) * product_norm(up, down)
    weight = layer.get_base_layer().weight.detach().to(down.device).flatten(1).float()  # of a swapped block: in main memory
    magnitude = layer.lora_magnitude_vector[ADAPTER].weight.detach().flatten().cpu().double()
    return math.sqrt(max(0.0, float(_dora_rows(weight, up, down, scale, magnitude).sum())))


def _dora_rows(weight: Tensor, up: Tensor, down: Tensor, scale: float, magnitude: Tensor) -> Tensor:
    """Squared norms (O,) of the rows of (c - 1) W + c s B A with c = m / ||W + s B A||: nothing large cancels."""
    own = weight.norm(dim=1).cpu().double().square()
    inner = scale * ((weight @ down.T) * up).sum(1).cpu().double()  # <W, s B A> of each row
    up, down = up.cpu().double(), down.cpu().double()
    added = scale**2 * ((up @ (down @ down.T)) * up).sum(1)
    factor = magnitude / (own + 2 * inner + added).sqrt()
    found: Tensor = (factor - 1).square() * own + 2 * (factor - 1) * factor * inner + factor.square() * added
    return found
