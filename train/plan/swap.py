"""Block swap in a plan: what can be swapped, what is, what that saves, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.family import Family
from registry.parts import Parts
from registry.printable import counted
from registry.quantised.empty import quantised_sizes
from registry.swapping.blocks import BlockSize, Swap, block_sizes, swap_of
from train.config import TrainConfig
from train.plan.quantised import quantisation_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WHOLE = 0.9  # of the swapped bytes: slots that take so much of them save nothing that is worth the copies


def swappable(config: TrainConfig, family: Family, parts: Parts, itemsize: int) -> dict[str, BlockSize]:
    """The blocks of a skeleton that can be swapped. `itemsize` is that of the run's real numbers; others have their own."""
    kept = quantised_sizes(parts.denoiser, quantisation_of(config, family).of(family.denoiser))

    def bytes_of(tensor: Tensor) -> int:
        if id(tensor) in kept:
            return kept[id(tensor)]
        return tensor.numel() * (itemsize if tensor.is_floating_point() else tensor.element_size())

    return block_sizes(family, parts.denoiser, bytes_of)


def check_swap(config: TrainConfig, family: Family, parts: Parts, device: torch.device) -> None:
    """Refuse more blocks than there are, and a device that shares its memory with the processor. Raises Refused."""
    swap_of(swappable(config, family, parts, 4), config.swap_blocks, title=family.title)
    if device.type == "mps":
        raise Refused(
            f"swap_blocks={config.swap_blocks}: device=mps has one memory with the processor, so that nothing is saved. Leave it out."
        )


def swap_json(swap: Swap) -> dict[str, Any]:
    """Plain values: bytes of each block that can be swapped, those that are, and what that takes and saves."""
    return {
        "blocks": {name: size.weights for name, size in swap.sizes.items()},
        "swapped": list(swap.swapped),
        "host_bytes": swap.host_bytes,
        "slots": swap.slots,
        "slot_bytes": swap.slot_bytes,
        "saved_bytes": swap.saved_bytes,
    }


def swap_notes(swap: Swap | None, config: TrainConfig, device: torch.device, processes: int) -> Iterator[str]:
    """What is unusual of the blocks that are swapped."""
    if swap is None or not swap.swapped:
        return
    given = f"swap_blocks={config.swap_blocks}"
    if device.type == "cpu":
        yield (
            f"{given} on the CPU: main memory and the device's are one. It saves where the base is read as it lies in its file (a"
            " diffusers folder in the run's precision), which the system drops and reads again"
        )
    if swap.device_bytes > WHOLE * swap.host_bytes:
        yield f"{given} saves nothing: {counted(swap.slots, 'slot')} for the largest of these blocks take what the blocks took. Give more"
    if processes > 1 and device.type == "cuda":
        yield f"{given}: each of the {processes} processes keeps its own copy of the swapped blocks in main memory"
