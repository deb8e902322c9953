"""A training's planned memory on a CPU beside its measured peak, with `pocket`: sizes, precisions and batches.

    OMP_NUM_THREADS=1 python -m bench.train.memory [PIXELS ...] [--without]

Each row is a process of its own with a new home: a plan under `memory=8GiB` (`--without`: without a budget, where freed memory is kept),
then two steps of a LoRA of rank 16 with held-out losses and a preview. The peak is the process's largest resident memory, with the stage
that it was in.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIZES = (64, 256, 512)  # pixels a side
ROWS = tuple((precision, batch) for precision in ("fp32", "bf16") for batch in (1, 4))
MIB = 1 << 20


def measure(pixels: int, precision: str, batch: int, memory: str | None) -> dict[str, Any]:
    """Bytes that the plan says and that were resident, in this process."""
    from bench.random_model import Watch
    from registry.store import Store
    from tests.tiny import tiny_dataset
    from train import run
    from train.config import DataConfig, LoraConfig, Precision, PreviewConfig, TrainConfig
    from train.plan.savings import SEARCHED

    with tempfile.TemporaryDirectory() as scratch:
        config = TrainConfig(
            name="discs",
            base="pocket",
            data=DataConfig(path=str(tiny_dataset(Path(scratch) / "discs", 8, pixels))),
            resolution=pixels,
            steps=2,
            batch_size=batch,
            precision=Precision[precision],
            lora=LoraConfig(rank=16),
            preview=PreviewConfig(prompts=["a disc"], steps=2),
            device="cpu",
            memory=memory,
            out=f"{scratch}/runs",
        )
        store = Store(Path(scratch) / "home")
        planned = run.plan(config, store, fixed=SEARCHED).estimate.total
        with Watch() as watch:
            run.run(config, store, fixed=SEARCHED, report=lambda tick: setattr(watch, "stage", tick.stage))
    return {"planned": planned, "peaks": {stage: peak["resident"] for stage, peak in watch.peaks.items()}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pixels", nargs="*", type=int)
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--row", nargs=2)
    given = parser.parse_args()
    memory = None if given.without else "8GiB"
    if given.row is not None:
        print(json.dumps(measure(given.pixels[0], given.row[0], int(given.row[1]), memory)))
        return
    print("| pixels | precision | batch | planned, MiB | measured | measured / planned | while |\n|---|---|---|---|---|---|---|")
    for pixels in given.pixels or SIZES:
        for precision, batch in ROWS:
            row = json.loads(said(pixels, precision, batch, without=given.without).splitlines()[-1])
            planned, measured = row["planned"] / MIB, max(row["peaks"].values()) / MIB
            at = max(row["peaks"], key=row["peaks"].__getitem__)
            print(f"| {pixels} | {precision} | {batch} | {planned:,.0f} | {measured:,.0f} | {measured / planned:.2f} | {at} |", flush=True)


def said(pixels: int, precision: str, batch: int, *, without: bool) -> str:
    """What a process of its own prints of a row."""
    command = [sys.executable, "-m", "bench.train.memory", str(pixels), "--row", precision, str(batch), *(["--without"] if without else [])]
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(command, env=os.environ | {"LORALOOM_HOME": home}, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main()
