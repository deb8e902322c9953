"""A grid's planned memory on a CPU beside its measured peak, with `pocket` in fp32: images of some sizes, so many of them at once.

    OMP_NUM_THREADS=1 python -m bench.grid.estimate

Each grid is planned and drawn by commands of their own in one new home. The peak is the process's largest resident memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

SIZES = ((64, 8), (128, 8), (256, 4), (512, 2))  # pixels a side, images at once
MIB = 1 << 20
PEAK = "import resource, sys; from loraloom.cli import main; main(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def main() -> None:
    print("| pixels | images at once | planned, MiB | measured | measured / planned |\n|---|---|---|---|---|")
    seeds = count(1, 8)
    with tempfile.TemporaryDirectory() as home:
        for size, together in SIZES:
            grid = ["base=pocket", "prompt=a red apple", "steps=2", "device=cpu", "precision=fp32", "memory=8GiB", f"out={home}/grids"]
            grid += [f"size={size}", f"batch_size={together}", f"axes.seed={(seed := next(seeds))}-{seed + 7}"]
            planned = json.loads(said([*grid, "dry_run=true", "--json"], Path(home)))["memory"]["peak_bytes"] / MIB
            measured = int(said(grid, Path(home)).split()[-1]) / 1024
            print(f"| {size} | {together} | {planned:,.0f} | {measured:,.0f} | {measured / planned:.2f} |", flush=True)


def said(grid: list[str], home: Path) -> str:
    """What `loraloom grid` prints, and last the KiB of its peak."""
    command = [sys.executable, "-m", "loraloom", "grid"] if "--json" in grid else [sys.executable, "-c", PEAK, "grid"]
    return subprocess.run(
        [*command, *grid], env=os.environ | {"LORALOOM_HOME": f"{home}/home"}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main()
