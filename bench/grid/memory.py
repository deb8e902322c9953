"""Memory of a grid of many cells and adapters: resident MiB after each tenth of the cells.

    OMP_NUM_THREADS=1 .venv/bin/python -m bench.grid.memory --cells 500 --adapters 50

One step at 32 pixels on `pocket`, so that what a cell leaves behind is not lost in what drawing it takes.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import warnings
from pathlib import Path

from registry.budget.free import resident_bytes
from registry.progress import Tick


def main() -> None:
    """Draw, and print memory as it goes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--adapters", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=1)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as home:
        rows = draw(Path(home), arguments.cells, arguments.adapters, arguments.batch_size)
    first = rows[arguments.cells // 10]
    for cells, mib in rows.items():
        print(f"{cells:5} cells: {mib:,.0f} MiB ({mib / first - 1:+.1%} of the first tenth)")


def draw(home: Path, cells: int, adapters: int, batch_size: int) -> dict[int, float]:
    """Resident MiB by the number of cells that are drawn; the last is that after the sheet and the report."""
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import run
    from registry.home import pocket_dir
    from registry.store import Store
    from tests.tiny import tiny_adapter

    files = [
        str(tiny_adapter(pocket_dir(), home / f"adapter{seed}.safetensors", family="sd1", rank=8, seed=seed)) for seed in range(adapters)
    ]
    rows: dict[int, float] = {}

    def watch(tick: Tick) -> None:
        if tick.stage == "cells" and tick.done % (cells // 10) == 0:
            gc.collect()
            rows[tick.done] = resident_bytes() / 2**20
            print(tick.done, round(rows[tick.done]), flush=True)

    store = Store(home / "home")
    axes = Axes(adapter=files, seed=[f"1-{cells // adapters}"])
    run(GridConfig(prompt="a cat", steps=1, size="32", batch_size=batch_size, out=str(home / "runs"), axes=axes), store, report=watch)
    gc.collect()
    rows[cells + 1] = resident_bytes() / 2**20
    store.close()
    return rows


if __name__ == "__main__":
    main()
