"""Freed memory back to the system in the middle of a pass on the CPU: between the blocks that gradient checkpointing computes again,
and between those of a denoiser and a VAE that draw or learn within a memory budget.

glibc keeps freed tensors of up to 32 MiB for the next ones and does not find a place for all of those among them, so that a step takes
more and more than is in use: 0.9 GiB beside 3.4 at 1,024 tokens of a 7.6 GB model. To let go of everything between two blocks costs a
tenth of a step, as the pages are cleared anew; here that is done where more is resident than the last time, by what a block needs itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from registry.budget.free import resident_bytes
from registry.budget.freed import give_back

if TYPE_CHECKING:
    from torch import nn

LEAST = 256 << 20  # bytes of activations below which nothing is worth it


class Trimming:
    """Looks at this process's memory before each of some blocks is computed, and gives back what was freed where it has grown."""

    def __init__(self, slack: int, *, peak: int = 0) -> None:
        self.slack = slack  # bytes
        self.peak = peak  # bytes that this process may come to: far below it may grow by more
        self.times = 0  # memory was given back
        self._least: int | None = None

    def watch(self, blocks: Iterable[nn.Module], *, backward: bool = False) -> None:
        """Look before each of these; `backward`: before its backward pass too."""
        for block in blocks:
            block.register_forward_pre_hook(lambda _block, _inputs: self.look())
            if backward:
                block.register_forward_hook(lambda _block, _inputs, made: self._look_as_gradients_come(made))

    def _look_as_gradients_come(self, made: object) -> None:
        """Look once the gradient of a block's result is there, which no hook changes."""
        from torch import Tensor
        from torch.utils._pytree import tree_leaves

        for tensor in (leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor) and leaf.requires_grad):
            tensor.register_hook(lambda _gradient: self.look())  # type: ignore[no-untyped-call]  # of torch

    def look(self) -> None:
        """Give back what was freed where more is resident than the last time, by `slack` and by a quarter of what is left to `peak`."""
        now = resident_bytes()
        if self._least is not None and now <= self._least + max(self.slack, (self.peak - now) // 4):
            self._least = min(self._least, now)
            return
        give_back()
        self.times += 1
        self._least = resident_bytes()
