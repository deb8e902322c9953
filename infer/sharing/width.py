"""How many images share a forward, from the memory that is free."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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
    """Runs `forward`, a denoiser call of one image, and gives the number of such images that fit the free memory: 1 to MOST."""
    import torch

    from registry.tensors.live_bytes import LiveBytes

    if device.type == "cuda":
        free = _free_on_cuda(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        forward()
        needed = torch.cuda.max_memory_allocated(device) - before
    else:
        free = free_memory_bytes()
        with LiveBytes() as live:
            forward()
        needed = live.peak
    return max(1, min(MOST, int(SHARE * free / max(1, needed))))


def _free_on_cuda(device: torch.device) -> int:
    """Bytes that are free for tensors: on the device, and what torch holds of it unused."""
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def free_memory_bytes() -> int:
    """Main memory that programs can still take: MemAvailable of Linux; elsewhere half of what is built in."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
