"""Memory that is free: of a device, and of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from registry.budget.costs import LATER_LIBRARIES, PROCESS_STEP

if TYPE_CHECKING:
    import torch

GROUP = "/sys/fs/cgroup"  # of this process, as containers see their own (cgroup v2)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device now; None where the system does not tell. A CPU's are main memory's."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return available_bytes()


def available_bytes() -> int | None:
    """Bytes of main memory that new work can take without swapping to disk, by the kernel (MemAvailable) and by the limit of the
    control group that this process is in (containers, batch systems); None where neither is known."""
    limit, used = _group("memory.max"), _group("memory.current")
    left = None if limit is None or used is None else max(0, limit - used + (_group("memory.stat", "inactive_file") or 0))
    return min((count for count in (_meminfo("MemAvailable"), left) if count is not None), default=None)


def main_memory_bytes() -> int | None:
    """Size of main memory, or the control group's limit of it; None where neither is known."""
    return min((count for count in (_meminfo("MemTotal"), _group("memory.max")) if count is not None), default=None)


def resident_bytes() -> int:
    """Memory of this process now, of its files too; its peak where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def process_bytes(device: torch.device) -> int:
    """What this process and its libraries take of the memory of a device, rounded up, so that the same command's next process takes
    the same; 0 where the device has memory of its own."""
    if device.type != "cpu":
        return 0
    return -(-(resident_bytes() + LATER_LIBRARIES) // PROCESS_STEP) * PROCESS_STEP


def _meminfo(name: str) -> int | None:
    found = _row("/proc/meminfo", f"{name}:")
    return None if found is None else found * 1024


def _group(file: str, name: str = "") -> int | None:
    """A figure of the control group; None without one, and for `max`, no limit. Of its cache, inactive_file is given back when needed."""
    return _row(f"{GROUP}/{file}", name)


def _row(path: str, name: str) -> int | None:
    """The number behind a name at the beginning of a line; without a name, that of the first line."""
    try:
        with open(path, encoding="ascii") as lines:
            rows = (line.split() for line in lines)
            return next((int(row[1] if name else row[0]) for row in rows if not name or row[0] == name), None)
    except (OSError, ValueError):
        return None
