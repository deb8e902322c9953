"""A LoRA trained on a transformer of 2 GB of random weights, as it is and quantised: memory, CPU seconds, and what the plan said.

    OMP_NUM_THREADS=1 python -m bench.quantised.training FOLDER [DTYPE ...]      the model is made in FOLDER once

Z-Image's transformer with its own widths and six of its blocks, a tiny text encoder and a tiny VAE; `loraloom train`'s own run (plan,
load, encode, two steps at 192 px, save, load again, prove), each row in a process of its own, one after the other. The row bf16 is mapped
from its file: its weights are pages of the file, which the system may drop, and count as resident while they are used.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.random_model import MIB, Watch, memory, random_folder

TRANSFORMER: dict[str, Any] = {
    "dim": 3840,
    "n_layers": 4,
    "n_refiner_layers": 1,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
}
DTYPES = ("bf16", "int8", "nf4")
PIXELS, STEPS = 192, 2


def make(place: Path) -> Path:
    """The folder."""
    import torch

    from tests.tiny import shared_folder

    return random_folder(place, shared_folder("z_image"), {"transformer": TRANSFORMER}, dtype=torch.bfloat16)


def measure(base: Path, dtype: str) -> dict[str, float]:
    """Bytes and CPU seconds of a run in this process, and the plan's estimate of it."""
    from bench.swap.sdxl import settings
    from registry.store import Store
    from train import run

    with tempfile.TemporaryDirectory() as scratch:
        config = replace(settings(base, Path(scratch), None if dtype == "bf16" else dtype), resolution=PIXELS, steps=STEPS)
        store = Store(Path(scratch) / "home")
        plan = run.plan(config, store)
        before = memory()

        def seen(tick: Any) -> None:
            watch.stage = "steps" if tick.stage == "train" and tick.done < tick.total else tick.stage

        begun = time.process_time()
        with Watch() as watch:
            run.run(config, store, report=seen)
        seconds = time.process_time() - begun
    return {
        "planned": plan.estimate.total,
        "resident": watch.resident,
        "anonymous": watch.anonymous,
        "before": before["RssAnon"] + before["RssFile"],
        "steps_resident": watch.peaks["steps"]["resident"],
        "seconds": seconds,
        "steps": watch.peaks["steps"]["seconds"],
    }


def main(place: Path, dtypes: tuple[str, ...]) -> None:
    make(place)
    memory_columns = "peak RSS, MiB | to bf16 | anonymous, MiB | planned, MiB | planned / peak RSS"
    print(f"| weights | {memory_columns} | CPU s, steps | to bf16 | CPU s, whole run | to bf16 |")
    print("|" + "---|" * 10, flush=True)
    first: dict[str, float] | None = None
    for dtype in dtypes:
        command = [sys.executable, "-m", "bench.quantised.training", str(place), "--row", dtype]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        first = first or found
        sizes = {name: f"{found[name] / MIB:,.0f}" for name in ("resident", "anonymous", "planned")}
        ratio = {name: f"{found[name] / first[name]:.2f}" for name in ("resident", "steps", "seconds")}
        cells = [sizes["resident"], ratio["resident"], sizes["anonymous"], sizes["planned"], f"{found['planned'] / found['resident']:.2f}"]
        cells += [f"{found['steps']:.0f}", ratio["steps"], f"{found['seconds']:.0f}", ratio["seconds"]]
        print(f"| {dtype} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if "--row" in sys.argv:
        print(json.dumps(measure(Path(sys.argv[1]), sys.argv[3])))
    else:
        main(Path(sys.argv[1]), tuple(sys.argv[2:]) or DTYPES)
