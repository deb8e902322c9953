"""Arithmetic in 8 bits in a plan: whether the device has it, how many layers take part, and whether it is faster there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from train.config import TrainConfig
from train.plan.base import resolve_precision
from train.plan.speed import least_seconds, products_a_second

if TYPE_CHECKING:
    import torch

SIZES = {"cpu": 512}  # rows and columns of the product that is timed
ON_A_GPU = 4096


def check_device_computes(config: TrainConfig, device: torch.device) -> None:
    """Refuse arithmetic that the device has not. Raises Refused."""
    if config.compute is not None:
        from registry.quantised.products import check_compute

        check_compute(config.compute, device)


def compute_rows(config: TrainConfig) -> list[tuple[str, str]]:
    """The plan's row."""
    if config.compute is None:
        return []
    back = "its gradients too" if config.compute == "int8" else "gradients through the dequantised weights"
    return [("compute", f"{config.compute}: products of the quantised layers with activations in {config.compute}, token by token; {back}")]


def compute_notes(config: TrainConfig, device: torch.device) -> Iterator[str]:
    """Where it is slower than what it replaces."""
    if config.compute is None:
        return
    plain, actual = products_a_second(device, resolve_precision(config.precision, device)), products_in_8_bits(device, config.compute)
    if actual < plain:
        yield (
            f"compute={config.compute} is slower on this {device.type}: {actual / 1e9:,.0f} billion operations a second in a product, and"
            f" {plain / 1e9:,.0f} at precision={config.precision.name}. Without compute the same layers are dequantised"
        )


@lru_cache(maxsize=8)
def products_in_8_bits(device: torch.device, kind: str) -> float:
    """Operations per second of a linear layer that quantises its input. Measured once a process."""
    import torch
    from torch import nn

    from registry.quantised.linear import QuantisedLinear
    from registry.quantised.products import set_compute

    size = SIZES.get(device.type, ON_A_GPU)
    layer = QuantisedLinear(nn.Linear(size, size, bias=False, device="meta"), kind)
    layer.set_weight(torch.ones(size, size))
    layer.to(device)
    set_compute(layer, kind)
    tokens = torch.ones(size, size, device=device)

    def product() -> None:
        with torch.no_grad():
            float(layer(tokens)[0, 0])  # waits for it

    return 2.0 * size**3 / least_seconds(product)
