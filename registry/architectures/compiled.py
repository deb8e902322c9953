"""The repeated blocks of a denoiser, compiled: one code for all blocks of a kind, in place of one for the whole model.

A model's blocks are a few kinds, each many times; torch.compile keeps a kind's code by what it was compiled for (shapes, strides,
dtypes, whether gradients are wanted), and every block of that kind finds it there. So the wait is that of one block a kind, not of the
model's depth. Only a block's own `forward` is compiled: gradient checkpointing and block swap stay as they are around it. Weights are
inputs of the code, so that they may lie elsewhere each time; what a backward pass reads must be a saved tensor (`keep_layer` in
registry/quantised/linear.py says why).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from registry.family import Family
from registry.swapping.blocks import blocks_of

if TYPE_CHECKING:
    from torch import nn

CODES = 256  # that torch keeps of one function, of widths, image sizes and modes; 8 by default, and then it computes uncompiled


def compiled_blocks(family: Family, denoiser: nn.Module) -> Mapping[str, nn.Module]:
    """The blocks that are compiled, by name: of those that are swapped the kinds that diffusers names as repeated, where it names any.

    In a UNet that leaves out the convolutional ones, which have nearly each a width of their own: SDXL's 17 would be compiled 12 times.
    """
    blocks = blocks_of(family, denoiser)
    repeated = getattr(denoiser, "_repeated_blocks", None) or ()
    return {name: block for name, block in blocks.items() if type(block).__name__ in repeated} or blocks


def compile_blocks(family: Family, denoiser: nn.Module) -> Counter[str]:
    """Compile every block at its first use, from now on; how many there are of each kind."""
    import torch

    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, CODES)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, CODES)
    kinds: Counter[str] = Counter()
    for block in compiled_blocks(family, denoiser).values():
        kinds[type(block).__name__] += 1
        block.forward = torch.compile(block.forward)
    return kinds


@contextmanager
def uncompiled() -> Iterator[None]:
    """Compiled blocks compute as they are written inside: their own operations, rounded one by one."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield
