"""How many images share a forward, from the memory that is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from registry.budget.free import free_bytes
from registry.errors import Refused

if TYPE_CHECKING:
    import torch

AUTO = "auto"
MOST = 16  # images a forward of `auto`: beyond it there is little to gain (bench/grid)
SHARE = 0.5  # of the free memory: the rest is for the decoder, for images under way and for other programs


def read_batch_size(value: object) -> int | None:
    """The number of images that share a forward at most; None for `auto`. Raises Refused."""
    if value == AUTO:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refused(f"batch_size is {value!r}. Expected a whole number of 1 or more (1: every cell is drawn alone), or {AUTO}.")
    return value


def measured_width(forward: Callable[[], None], device: torch.device) -> int:
    """Runs `forward`, a denoiser call of one image, and gives the number of such images that fit the free memory: 1 to MOST.

    1 where the system does not tell what is free.
    """
    import torch

    from registry.tensors.live_bytes import LiveBytes

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch holds it, and it is free for tensors
        free: int | None = (free_bytes(device) or 0) + unused
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        forward()
        needed = torch.cuda.max_memory_allocated(device) - before
    else:
        free = free_bytes(device)
        with LiveBytes() as live:
            forward()
        needed = live.peak
    return 1 if free is None else max(1, min(MOST, int(SHARE * free / max(1, needed))))
