"""How long the second of two bases loads in a grid: with cold files, with files read ahead while the first one draws, with warm files.

    OMP_NUM_THREADS=1 .venv/bin/python -m bench.grid.read_ahead FOLDER --rounds 3

Makes two bases of SD 1's classes and some 1 GB of random fp16 weights in FOLDER (once), and takes their files out of the page cache
before each cold round (Linux). Wall seconds: what is saved is the wait for the disk.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

WIDTHS = {"first": [896, 1792], "second": [896, 1664]}  # of the UNet; other widths, so that they are two models


def main() -> None:
    """Draw, and print a row for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    bases = [make(arguments.folder / name) for name in WIDTHS]
    size = sum(path.stat().st_size for path in bases[1].rglob("*.safetensors"))
    print(f"{size / 2**20:,.0f} MiB each; wall seconds to load the second base")
    draw(bases, read_ahead=False)  # hashes, and imports
    for number in range(arguments.rounds):
        row = {}
        for way in ("cold", "read ahead", "warm"):
            if way != "warm":
                forget(bases)
            row[way] = draw(bases, read_ahead=way == "read ahead")
        print(number + 1, {way: round(seconds, 2) for way, seconds in row.items()}, flush=True)


def make(place: Path) -> Path:
    """A base's folder."""
    import torch

    from bench.random_model import random_folder
    from tests.tiny import shared_folder

    return random_folder(place, shared_folder("sd1"), {"unet": {"block_out_channels": WIDTHS[place.name]}}, dtype=torch.float16)


def forget(bases: list[Path]) -> None:
    """Take the bases' files out of the page cache."""
    for path in (path for base in bases for path in base.rglob("*.safetensors")):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def draw(bases: list[Path], *, read_ahead: bool) -> float:
    """Seconds that the second base took to load, in a grid over both."""
    from infer.grid import division
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import run
    from registry.progress import Tick
    from registry.store import Store

    began: list[float] = []
    took: list[float] = []

    def watch(tick: Tick) -> None:
        if tick.stage == "load":
            (took if tick.done else began).append(time.monotonic())

    own: Any = division.ReadAhead.start
    if not read_ahead:
        division.ReadAhead.start = lambda self: None  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as work:
            store = Store(bases[0].parent / "home")
            config = GridConfig(
                prompt="a cat",
                steps=4,
                seed=time.time_ns() % 2**40,  # a cell that is not there yet
                precision="bf16",
                keep_latents="0",
                out=work,
                axes=Axes(base=[str(base) for base in bases]),
            )
            run(config, store, report=watch)
            store.close()
    finally:
        division.ReadAhead.start = own  # type: ignore[method-assign]
    return took[1] - began[1]


if __name__ == "__main__":
    main()
