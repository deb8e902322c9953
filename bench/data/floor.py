"""`loraloom data lint` and the plan of a training against the floor, which reads each file, its sha256, Pillow's decode: CPU and memory.

    python -m bench.data.floor FOLDER [NUMBER ...]      write and measure the sets (500, 5,000, 50,000), print the table

Images are of 256 pixels with the spectrum of photographs, JPEGs of quality 90 and every tenth a PNG, two in a hundred twice; each has a
caption. Each contender is a process of its own, in turn, imports counted; the best of ROUNDS counts. A plan has a start of its own, that of
the base: what an image adds is counted from a set of 20 images. 50,000 images take 2.3 GB; delete FOLDER afterwards.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from bench.data.lint import BARE, LINT, measured, write_set

SIDE, PNG = 256, 10
NUMBERS = (500, 5_000, 50_000)
LEAST = 20  # images of the set that shows what a start costs
ROUNDS = 3
PLAN = """
import sys
from registry.store import Store
from train import run
from train.config import DataConfig, TrainConfig
data = DataConfig(path=sys.argv[1], trigger="zwxman")
made = run.plan(TrainConfig(name="floor", base="pocket", data=data, steps=100, device="cpu", out=sys.argv[3]), Store())
assert len(made.train) == int(sys.argv[2])
"""
Figures = dict[str, tuple[float, float]]  # contender -> (CPU seconds, peak MiB)


def figures(place: Path, out: str, *, rounds: int = ROUNDS) -> tuple[int, Figures]:
    """(images, the best seconds and the largest memory of each contender)."""
    images = sum(file.suffix in (".jpg", ".png") for file in place.iterdir())
    best: Figures = {}
    for _ in range(rounds):
        for name, code in (("floor", BARE), ("lint", LINT), ("plan", PLAN)):
            seconds, mib = measured(code, str(place), str(images), out)
            known = best.get(name, (seconds, mib))
            best[name] = min(seconds, known[0]), max(mib, known[1])
    return images, best


def main() -> None:
    """Print the table."""
    folder, *given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORALOOM_HOME"] = home
        start_place = Path(folder) / f"set{LEAST}"
        write_set(start_place, LEAST, SIDE, png=PNG)
        least, start = figures(start_place, f"{home}/out")
        print(f"start ({least} images): " + ", ".join(f"{name} {seconds:.2f} s, {mib:.0f} MiB" for name, (seconds, mib) in start.items()))
        print("| images | floor, CPU s | lint | plan | floor, ms an image | lint | plan | lint / floor | plan / floor | peak MiB |")
        print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
        for number in [int(one) for one in given] or NUMBERS:
            place = Path(folder) / f"set{number}"
            write_set(place, number, SIDE, png=PNG)
            images, found = figures(place, f"{home}/out", rounds=ROUNDS if number < 20_000 else 1)
            each = {name: (found[name][0] - start[name][0]) * 1e3 / (images - least) for name in found}
            times = " | ".join(f"{found[name][0]:.1f}" for name in found)
            ratios = f"{each['lint'] / each['floor']:.2f} | {each['plan'] / each['floor']:.2f}"
            peaks = ", ".join(f"{name} {mib:.0f}" for name, (_, mib) in found.items())
            print(f"| {images:,} | {times} | " + " | ".join(f"{each[name]:.2f}" for name in found) + f" | {ratios} | {peaks} |", flush=True)


if __name__ == "__main__":
    main()
