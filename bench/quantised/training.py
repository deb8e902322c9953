"""A LoRA trained on a transformer of random weights, as it is, quantised and swapped: memory, CPU seconds, and what the plan said.

    OMP_NUM_THREADS=1 python -m bench.quantised.training FOLDER [ROW ...] [--layers 4] [--pixels 192]

The model is made in FOLDER once: Z-Image's transformer with its own widths and so many of its layers beside its two refiners (4: 2.1 GB in
bf16), a tiny text encoder and a tiny VAE. `loraloom train`'s own run (plan, load, encode, two steps, save, load again, prove), each row in
a process of its own, one after the other. A ROW is bf16, fp32, int8, fp8 or nf4, and `bf16+swap3` has three blocks swapped. The row bf16
is mapped from its file: its weights are pages of the file, which the system may drop, and count as resident while they are used.
"""

from __future__ import annotations

import argparse
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
    "n_refiner_layers": 1,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
}
ROWS = ("bf16", "int8", "nf4")
STEPS = 2


def make(place: Path, layers: int) -> Path:
    """The folder."""
    import torch

    from tests.tiny import shared_folder

    return random_folder(place, shared_folder("z_image"), {"transformer": TRANSFORMER | {"n_layers": layers}}, dtype=torch.bfloat16)


def settings_of(row: str) -> dict[str, Any]:
    """The settings of a row."""
    from train.config import Precision

    dtype, _, swapped = row.partition("+swap")
    plain = dtype in ("bf16", "fp32")
    return {
        "precision": Precision.fp32 if dtype == "fp32" else Precision.bf16,
        "base_dtype": None if plain else dtype,
        "swap_blocks": int(swapped or 0),
    }


def measure(base: Path, row: str, pixels: int) -> dict[str, float]:
    """Bytes and CPU seconds of a run in this process, and the plan's estimate of it."""
    from bench.swap.sdxl import settings
    from registry.store import Store
    from train import run

    with tempfile.TemporaryDirectory() as scratch:
        config = replace(settings(base, Path(scratch), None), resolution=pixels, steps=STEPS, **settings_of(row))
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


def main(place: Path, rows: list[str], layers: int, pixels: int) -> None:
    make(place, layers)
    memory_columns = "peak RSS, MiB | to bf16 | anonymous, MiB | planned, MiB | planned / peak RSS"
    print(f"| weights | {memory_columns} | CPU s, steps | to bf16 | CPU s, whole run | to bf16 |")
    print("|" + "---|" * 10, flush=True)
    first: dict[str, float] | None = None
    for row in rows:
        command = [sys.executable, "-m", "bench.quantised.training", str(place), row, "--pixels", str(pixels), "--alone"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        first = first or found
        sizes = {name: f"{found[name] / MIB:,.0f}" for name in ("resident", "anonymous", "planned")}
        ratio = {name: f"{found[name] / first[name]:.2f}" for name in ("resident", "steps", "seconds")}
        cells = [sizes["resident"], ratio["resident"], sizes["anonymous"], sizes["planned"], f"{found['planned'] / found['resident']:.2f}"]
        cells += [f"{found['steps']:.0f}", ratio["steps"], f"{found['seconds']:.0f}", ratio["seconds"]]
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    reader = argparse.ArgumentParser()
    reader.add_argument("folder", type=Path)
    reader.add_argument("rows", nargs="*", default=list(ROWS))
    reader.add_argument("--layers", type=int, default=4)
    reader.add_argument("--pixels", type=int, default=192)
    reader.add_argument("--alone", action="store_true", help="one row in this process, as JSON")
    given = reader.parse_args()
    if given.alone:
        print(json.dumps(measure(given.folder, given.rows[0], given.pixels)))
    else:
        main(given.folder, given.rows, given.layers, given.pixels)
