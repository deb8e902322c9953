"""`loraloom data lint` and the plan of a training against the floor (reading, sha256 and decoding each file, its caption): CPU and memory.

    python -m bench.data.floor FOLDER [NUMBER ...]      write and measure the sets (500, 5,000, 50,000), print the table

The bound is the floor and what no lint with these findings can leave out, by the same functions: luma and small copy of each image, which
Pillow makes, and the measures of them.

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
CAPTION = '    file.with_suffix(".txt").read_text(encoding="utf-8")\n'
FLOOR = BARE + CAPTION
BOUND = """
import hashlib, io, sys
from pathlib import Path
from PIL import Image
from train.data.linting.measures import SetMeasures
from train.data.overview import overview
from train.data.duplicates.small_copies import SmallCopies
measures, copies = SetMeasures(), SmallCopies()
for file in sorted(file for file in Path(sys.argv[1]).iterdir() if file.suffix in (".jpg", ".png")):
    data = file.read_bytes()
    hashlib.sha256(data).hexdigest()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    measures.add(image, overview(image), copies)
    file.with_suffix(".txt").read_text(encoding="utf-8")
assert len([*measures]) == int(sys.argv[2])
"""
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
        for name, code in (("floor", FLOOR), ("bound", BOUND), ("lint", LINT), ("plan", PLAN)):
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
        names = "floor", "bound", "lint", "plan"
        head = [
            "images",
            "floor, CPU s",
            *names[1:],
            "floor, ms an image",
            *names[1:],
            *(f"{name} / floor" for name in names[1:]),
            "peak MiB",
        ]
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
        for number in [int(one) for one in given] or NUMBERS:
            place = Path(folder) / f"set{number}"
            write_set(place, number, SIDE, png=PNG)
            images, found = figures(place, f"{home}/out", rounds=ROUNDS if number < 20_000 else 1)
            each = {name: (found[name][0] - start[name][0]) * 1e3 / (images - least) for name in found}
            times = " | ".join(f"{found[name][0]:.1f}" for name in found)
            ratios = " | ".join(f"{each[name] / each['floor']:.2f}" for name in found if name != "floor")
            peaks = ", ".join(f"{name} {mib:.0f}" for name, (_, mib) in found.items())
            print(f"| {images:,} | {times} | " + " | ".join(f"{each[name]:.2f}" for name in found) + f" | {ratios} | {peaks} |", flush=True)


if __name__ == "__main__":
    main()
