"""What a training's process takes of main memory after its plan beside the model: libraries that are imported later, and the allocator.

    OMP_NUM_THREADS=1 python -m bench.memory.libraries

A run of two steps on a base of two layers, whose weights and activations are less than a MiB: registry/budget/costs.py's LATER_LIBRARIES.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.random_model import MIB, Watch, memory


def main() -> None:
    from bench.swap.sdxl import settings
    from registry.store import Store
    from tests.tiny import shared_folder
    from train import run

    with tempfile.TemporaryDirectory() as scratch:
        config = replace(settings(shared_folder("sd1"), Path(scratch), None), resolution=32, steps=2)
        store = Store(Path(scratch) / "home")
        run.plan(config, store)
        before = memory()

        def seen(tick: Any) -> None:
            watch.stage = tick.stage

        with Watch() as watch:
            run.run(config, store, report=seen)
    planned = before["RssAnon"] + before["RssFile"]
    print(f"after the plan: {planned / MIB:,.0f} MiB")
    for stage, peak in watch.peaks.items():
        print(f"{stage}: {(peak['resident'] - planned) / MIB:+,.0f} MiB")


if __name__ == "__main__":
    main()
