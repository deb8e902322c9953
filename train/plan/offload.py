"""Activations in main memory, in a plan: where that saves nothing, and what it moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.errors import Refused
from train.config import TrainConfig

if TYPE_CHECKING:
    import torch


def check_offload(config: TrainConfig, device: torch.device) -> None:
    """Refuse a device that shares its memory with the processor. Raises Refused."""
    if config.offload_activations and device.type == "mps":
        raise Refused("offload_activations=true: device=mps has one memory with the processor, so that nothing is saved. Leave it out.")


def offload_notes(config: TrainConfig, device: torch.device) -> Iterator[str]:
    """Where it saves nothing."""
    if config.offload_activations and device.type == "cpu":
        yield "offload_activations=true on the CPU: main memory and the device's are one, and nothing is saved; the copies only take time"
