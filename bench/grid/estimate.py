"""A grid's planned memory on a CPU beside its measured peak, with `pocket`: sizes, precisions, and what else takes memory.

    OMP_NUM_THREADS=1 python -m bench.grid.estimate [ROW ...]

Each grid is planned and drawn by commands of their own in a new home, two steps an image. The peak is the process's largest resident
memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.grid.vae_axis import make_vae

MIB = 1 << 20
PEAK = "import resource, sys; from loraloom.cli import main; main(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
COMMON = ("prompt=a red apple", "steps=2", "device=cpu", "memory=8GiB", "name=estimate")
SIZES = ((64, 8), (128, 8), (256, 4), (512, 2))  # pixels a side, images at once
HINT = "controls=[{net: pocket-lines, image: datasets/lines/heart.png}]"
INIT = "init=datasets/ink/heldout/tulip.png"
IMAGE_ENLARGED = "hires={scale: 2, upscaler: lanczos, strength: 0.5}"


def rows(place: Path) -> Mapping[str, Sequence[str]]:
    """What each row gives, by its name; files that it needs are made in `place`."""

    def grid(size: int, together: int, *more: str, precision: str = "fp32") -> tuple[str, ...]:
        return (f"precision={precision}", f"size={size}", f"batch_size={together}", f"axes.seed=1-{together}", *more)

    sized = {f"{name}, {size} pixels": grid(size, many, precision=name) for name in ("fp32", "bf16") for size, many in SIZES}
    return {
        **sized,
        "fp32, 1,024 pixels": grid(1024, 1),
        "a tiny SDXL, 128 pixels": grid(128, 8, f"base={tiny(place)}"),
        "a ControlNet, 256 pixels": grid(256, 1, HINT, "fit=stretch"),
        "hires=2, 128 pixels": grid(128, 4, "hires=2"),
        "hires=2 of the image, 128 pixels": grid(128, 4, IMAGE_ENLARGED),
        "a mask, 256 pixels": grid(256, 4, INIT, f"mask={mask(place)}", "fit=stretch", "strength=1"),
        "an axis of three VAEs, 256 pixels": grid(256, 2, f"axes.vae=[{vaes(place)}]"),
    }


def tiny(place: Path) -> Path:
    """A tiny SDXL of random weights."""
    from tests.tiny import tiny_model

    return tiny_model("sdxl", place / "sdxl")


def mask(place: Path) -> Path:
    """A mask that has the left half redrawn."""
    from PIL import Image

    image = Image.new("L", (64, 64), 0)
    image.paste(255, (0, 0, 32, 64))
    image.save(place / "mask.png")
    return place / "mask.png"


def vaes(place: Path) -> str:
    """Three of `pocket`'s kind."""
    return ",".join(make_vae(place / f"vae{number}", 1 + 0.02 * number) for number in range(3))


def main() -> None:
    print("| grid | images at once | planned, MiB | measured | measured / planned |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for name, given in rows(Path(work)).items():
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            together = next(one.removeprefix("batch_size=") for one in given if one.startswith("batch_size="))
            with tempfile.TemporaryDirectory() as home:
                grid = [*COMMON, *(() if any(one.startswith("base=") for one in given) else ("base=pocket",)), *given, f"out={home}/grids"]
                planned = json.loads(said([*grid, "dry_run=true", "--json"], home))["memory"]["peak_bytes"] / MIB
                measured = int(said(grid, home).split()[-1]) / 1024
            print(f"| {name} | {together} | {planned:,.0f} | {measured:,.0f} | {measured / planned:.2f} |", flush=True)


def said(grid: Sequence[str], home: str) -> str:
    """What `loraloom grid` prints, and last the KiB of its peak."""
    command = [sys.executable, "-m", "loraloom", "grid"] if "--json" in grid else [sys.executable, "-c", PEAK, "grid"]
    return subprocess.run(
        [*command, *grid], env=os.environ | {"LORALOOM_HOME": f"{home}/home"}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main()
