"""What the proof of a saved file takes of memory beside the steps before it, by kind of adapter, on a transformer of random weights.

    OMP_NUM_THREADS=1 python -m bench.train.proof FOLDER [KIND ...] [--layers 1]

`loraloom train`'s own run of one step in bf16 (the folder of bench.quantised.training: 1 layer beside two refiners, 1.2 GB), each kind in a
process of its own. Resident memory, that of the mapped file included; the proof has a fresh base in place of the trained one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.random_model import MIB, Watch

KINDS = ("lora", "lokr", "loha", "dora")
PROOF = "save and prove"


def measure(base: Path, kind: str) -> dict[str, float]:
    """Bytes and CPU seconds of the two stages in this process."""
    from bench.swap.sdxl import settings
    from registry.store import Store
    from train import run
    from train.config import LoraConfig, Precision

    with tempfile.TemporaryDirectory() as scratch:
        lora = LoraConfig(kind=kind, rank=8)
        config = replace(settings(base, Path(scratch), None), resolution=64, steps=1, precision=Precision.bf16, lora=lora)

        def seen(tick: Any) -> None:
            watch.stage = tick.stage

        with Watch() as watch:
            run.run(config, Store(Path(scratch) / "home"), report=seen)
    steps, proof = watch.peaks["train"], watch.peaks[PROOF]
    return {"steps": steps["resident"], "proof": proof["resident"], "seconds": proof["seconds"]}


def main(place: Path, kinds: list[str], layers: int) -> None:
    from bench.quantised.training import make

    make(place, layers)
    print("| kind | peak of the steps, MiB | peak of the proof, MiB | CPU s, proof |\n|" + "---|" * 4, flush=True)
    for kind in kinds:
        command = [sys.executable, "-m", "bench.train.proof", str(place), kind, "--alone"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        print(f"| {kind} | {found['steps'] / MIB:,.0f} | {found['proof'] / MIB:,.0f} | {found['seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    reader = argparse.ArgumentParser()
    reader.add_argument("folder", type=Path)
    reader.add_argument("kinds", nargs="*", default=list(KINDS))
    reader.add_argument("--layers", type=int, default=1)
    reader.add_argument("--alone", action="store_true", help="one kind in this process, as JSON")
    given = reader.parse_args()
    if given.alone:
        print(json.dumps(measure(given.folder, given.kinds[0])))
    else:
        main(given.folder, given.kinds, given.layers)
