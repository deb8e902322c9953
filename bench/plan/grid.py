"""A grid's plan as a user waits for it: CPU seconds and peak memory of `loraloom grid ... dry_run=true` as a process of its own.

    OMP_NUM_THREADS=1 python -m bench.plan.grid [ROUNDS]

Rows alternate. "new home": the first plan of all in an empty home, as every plan was before answers on a base were kept. The floor is
an interpreter that imports what the first plan needs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

GRID = ["-m", "loraloom", "grid", "base=pocket", "dry_run=true"]
PROMPTS = 'axes.prompt=["a cat","a house","a tree","a boat"]'
ROWS: dict[str, list[str]] = {
    "import torch, diffusers, transformers": ["-c", "import torch, diffusers, transformers"],
    "4 cells, new home": [*GRID, PROMPTS],
    "4 cells": [*GRID, PROMPTS],
    "4 cells, adapter": [*GRID, PROMPTS, "adapters={adapter}"],
    "10,000 cells": [*GRID, PROMPTS, "axes.seed=1-2500"],
    "100,000 cells": [*GRID, PROMPTS, "axes.seed=1-25000"],
}
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(done.returncode)
"""


def cost(arguments: list[str], home: Path) -> tuple[float, float]:
    """CPU seconds and peak MiB of a process."""
    command = [sys.executable, "-c", MEASURE, sys.executable, *arguments]
    found = subprocess.run(command, env=os.environ | {"LORALOOM_HOME": str(home)}, check=True, capture_output=True, text=True)
    seconds, kib = found.stdout.split()
    return float(seconds), int(kib) / 1024


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        adapter = _adapter(Path(folder) / "ink.safetensors")
        home = Path(folder) / "home"
        rows = {name: [word.format(adapter=adapter) if "{adapter}" in word else word for word in words] for name, words in ROWS.items()}
        for words in rows.values():
            cost(words, home)  # the base becomes a known one, and modules are compiled
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        for number in range(rounds):
            for name, words in rows.items():
                found[name].append(cost(words, Path(folder) / f"new-{number}" if "new home" in name else home))
    print("| plan | CPU s, median (least) | peak, MiB |\n|---|---|---|")
    for name, costs in found.items():
        seconds = [one for one, _ in costs]
        print(f"| {name} | {statistics.median(seconds):.2f} ({min(seconds):.2f}) | {max(mib for _, mib in costs):.0f} |")
    print(f"\nLoad {os.getloadavg()[0]:.1f}; {rounds} rounds.")


def _adapter(path: Path) -> Path:
    """A LoRA of the embedded base, of rank 4, with random weights."""
    from registry.home import pocket_dir
    from tests.tiny import tiny_adapter

    tiny_adapter(pocket_dir(), path, seed=1)
    return path


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
