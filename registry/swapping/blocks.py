"""Which blocks of a denoiser can be swapped, which of them are, and what that is worth: arithmetic on shapes, for plans.

A block is what gradient checkpointing computes again as a whole (`Family.checkpointed`): between its forward and its backward pass
nothing of it is kept, so its weights may leave the device in between. In transformers that is every repeated block; in UNets every
ResNet block and every transformer block inside an attention layer. A whole stage of a UNet would be no unit: the largest of SDXL holds a
third of the model, and two such slots would be more than what stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import Refused
from registry.family import Family
from registry.printable import counted

if TYPE_CHECKING:
    from torch import Tensor, nn

ALIGNED = 512  # bytes that a tensor begins at a multiple of, as in torch's CUDA allocator
LINE = 64  # bytes of a cache line: the CPU's matrix products round by where in one a matrix begins, so that is kept
SLOTS = 2  # one block computes while the next one is copied


@dataclass(frozen=True)
class BlockSize:
    """Bytes of a block's weights and buffers, and of the room that they take in a slot."""

    weights: int
    slot: int


@dataclass(frozen=True)
class Swap:
    """Blocks in the order of the model, and those of them that lie in main memory."""

    sizes: Mapping[str, BlockSize]
    swapped: tuple[str, ...] = ()

    @property
    def slots(self) -> int:
        """Slots on the device that the swapped blocks share."""
        return min(SLOTS, len(self.swapped))

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot: those of the largest swapped block."""
        return max((self.sizes[name].slot for name in self.swapped), default=0)

    @property
    def device_bytes(self) -> int:
        """Bytes of all slots."""
        return self.slots * self.slot_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of main memory that the swapped blocks take."""
        return sum(self.sizes[name].weights for name in self.swapped)

    @property
    def saved_bytes(self) -> int:
        """What the device holds less; negative where the slots are larger than what they hold."""
        return self.host_bytes - self.device_bytes


def blocks_of(family: Family, denoiser: nn.Module) -> dict[str, nn.Module]:
    """Name -> module of every block that can be swapped, in the order in which the model lists them."""
    pattern = re.compile(family.checkpointed)
    return {name: module for name, module in denoiser.named_modules() if pattern.fullmatch(name)}


def block_sizes(family: Family, denoiser: nn.Module, bytes_of: Callable[[Tensor], int]) -> dict[str, BlockSize]:
    """The size of each block; `bytes_of` a tensor, which on a skeleton is not in the dtype of the run."""
    return {name: _size([bytes_of(tensor) for tensor in tensors_of(block)]) for name, block in blocks_of(family, denoiser).items()}


def tensors_of(block: nn.Module) -> list[Tensor]:
    """The block's parameters and buffers, each once."""
    return list({id(tensor): tensor for tensor in (*block.parameters(), *block.buffers())}.values())


def _size(sizes: list[int]) -> BlockSize:
    return BlockSize(sum(sizes), sum(room(size) for size in sizes))


def room(size: int) -> int:
    """Bytes that a tensor takes in a slot, wherever in LINE bytes it begins."""
    return -(-(size + LINE) // ALIGNED) * ALIGNED


def spread(count: int, total: int) -> list[int]:
    """The places of `count` of `total` blocks, evenly spread: each copy has the blocks in between to go on beside."""
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]


def swap_of(sizes: Mapping[str, BlockSize], count: int, *, title: str) -> Swap:
    """So many blocks swapped. Raises Refused beyond their number; `title` is the model's."""
    if count > len(sizes):
        raise Refused(f"swap_blocks={count}, but {title} has {_listed(sizes)}. Give at most {len(sizes)}.")
    names = list(sizes)
    return Swap(sizes, tuple(names[place] for place in spread(count, len(names))))


def _listed(sizes: Mapping[str, BlockSize]) -> str:
    """2 blocks that can be swapped: transformer_blocks.0 of 4.1 MB."""
    if not sizes:
        return "no blocks that can be swapped"
    kinds: dict[str, list[int]] = {}
    for name, size in sizes.items():
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(size.weights)
    shown = (f"{len(each)} {kind} of {_megabytes(min(each), max(each))}" for kind, each in kinds.items())
    return f"{counted(len(sizes), 'block')} that can be swapped ({', '.join(shown)})"


def _megabytes(low: int, high: int) -> str:
    least, most = (f"{size / 1e6:.3g}" for size in (low, high))
    return f"{least} MB each" if least == most else f"{least} to {most} MB"
