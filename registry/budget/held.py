"""Drawing and training on a CPU held to the memory that its plan names: what was freed goes back to the system before it is taken anew.

glibc keeps freed tensors of up to 32 MiB for the next ones, which is faster, and does not find a place for all of those among them: two
images of 512 pixels came to 1.4 of their plan (`bench.grid.estimate`). Without a budget that is left so; with one it would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.budget.trimmed import Trimming

if TYPE_CHECKING:
    from torch import nn

SLACK = 32 << 20  # bytes


class Held:
    """Holds the modules that it is given to a planned peak of this process, in bytes."""

    def __init__(self, peak: int) -> None:
        self.trimming = Trimming(SLACK, peak=peak)

    def hold(self, module: nn.Module, *, learns: bool = False) -> None:
        """Look at the memory before each block of a denoiser, a ControlNet or a VAE; `learns`: before its backward pass too."""
        self.trimming.watch(blocks_in(module), backward=learns)


def blocks_in(module: nn.Module) -> Iterator[nn.Module]:
    """What a model lists as its blocks, at every depth, without the single layers that a block lists."""
    from torch import nn

    for found in module.modules():
        if isinstance(found, nn.ModuleList):
            yield from (one for one in found if one is not None and any(True for _ in one.children()))
