"""A base that is drawn with swapped blocks: they lie in main memory, and each is fetched for its own part of a denoiser call."""

from __future__ import annotations

from typing import Any

from registry.errors import Refused
from registry.family import Family
from registry.parts import Parts
from registry.swapping.blocks import block_sizes, swap_of
from registry.swapping.swap import BlockSwap


def check_swapped(render: Any, family: Family, skeleton: Parts) -> None:
    """Refuse more blocks than the base has, and a device that shares its memory with the processor."""
    if render.swap_blocks <= 0:
        return
    swap_of(block_sizes(family, skeleton.denoiser, lambda tensor: tensor.nbytes), render.swap_blocks, title=family.title)
    if render.device == "mps":
        raise Refused(
            f"swap_blocks={render.swap_blocks}: device=mps has one memory with the processor, so that nothing is saved. Leave it out."
        )


def swapped(family: Family, parts: Parts, count: int, device: str) -> BlockSwap:
    """Parts that were loaded on the CPU, on their device but for so many blocks."""
    import torch

    swap = BlockSwap(family, parts.denoiser, count)
    for module in (parts.vae, *parts.text_encoders.values()):
        module.to(device)
    swap.begin(torch.device(device))
    return swap
