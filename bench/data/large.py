"""Large sets of small images: what linting each image costs, and the memory of training that is streamed from the cache.

    python -m bench.data.large FOLDER [NUMBER ...]      write the largest set, link the others, measure, print both tables

    python -m bench.data.large FOLDER train             training alone

Images are JPEGs of 64 pixels, each another colour curve of one of 500 textures, so that no two are near duplicates; bare is what
bench/data/lint.py has. Resident memory is read while the set is linted, after a tenth of the images and after the last.
Training is on a base of two layers (tests/tiny.py), with data.memory=0: encoded images stay in the cache. Its steps reach each of the
4,000 images once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.data.lint import BARE, CAPTION, measured

SIDE, TEXTURES = 64, 500
NUMBERS = (5_000, 20_000, 100_000)
STREAMED = (1_000, 4_000)  # images
BATCH, STEPS = 16, (25, 100, 175, 250)  # steps after which resident memory is read
LINT = """
import json, os, sys
from pathlib import Path
from train.data.lint import lint
from train.settings.data import DataConfig
number, found = int(sys.argv[2]), []
def report(tick):
    if tick.done in (number // 10, number):
        found.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
lint_of = lint(DataConfig(path=sys.argv[1], trigger="zwxman"), report=report)
assert not lint_of.faults and len(lint_of.samples) == number
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([used.ru_utime + used.ru_stime, peak / 1024, *found[:2]]))
"""
TRAIN = """
import json, os, sys
from pathlib import Path
from registry.store import Store
from train import run
from train.config import DataConfig, LoraConfig, PreviewConfig, TrainConfig
base, images, out, steps = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
found = {}
def report(tick):
    if tick.stage == "train" and tick.done in steps:
        found[tick.done] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
config = TrainConfig(name="large", base=base, data=DataConfig(path=images, trigger="zwxman", memory=0.0), resolution=32, steps=max(steps),
                     batch_size=int(sys.argv[5]), lora=LoraConfig(rank=2), preview=PreviewConfig(prompts=[]), device="cpu", out=out)
config.checkpoint.every = max(steps)
run.run(config, Store(), report=report)
print(json.dumps(found))
"""


def write_set(folder: Path, number: int) -> None:
    """The images and their captions, unless they are there."""
    import numpy
    from PIL import Image

    if (folder / ".done").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(0)
    noise = random.integers(0, 256, (TEXTURES, 8, 8, 3), dtype=numpy.uint8)
    textures = [numpy.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(numpy.float32) for one in noise]
    words = CAPTION.split()
    for place in range(number):
        gains, shifts = random.uniform(0.4, 1.0, 3).astype(numpy.float32), random.uniform(0, 100, 3).astype(numpy.float32)
        pixels = (textures[place % TEXTURES] * gains + shifts).clip(0, 255).astype(numpy.uint8)
        Image.fromarray(pixels).save(folder / f"{place:06d}.jpg", quality=90)
        turned = words[4:][place % 15 :] + words[4:][: place % 15]
        (folder / f"{place:06d}.txt").write_text(" ".join([*words[:4], *turned, str(place)]))
    (folder / ".done").touch()


def part_of(whole: Path, number: int) -> Path:
    """A folder of links to the first images of the set, without captions for training."""
    place = whole.with_name(f"{number}")
    if not place.is_dir():
        place.mkdir()
        for name in (f"{one:06d}{ending}" for one in range(number) for ending in (".jpg", ".txt")):
            os.link(whole / name, place / name)
    return place


def lint_row(place: Path, number: int) -> str:
    """A line of the first table."""
    bare = measured(BARE, str(place))
    done = subprocess.run([sys.executable, "-c", LINT, str(place), str(number)], capture_output=True, text=True, check=True)
    seconds, peak, tenth, end = json.loads(done.stdout.splitlines()[-1])
    each = (end - tenth) * 1024 / (number * 0.9)
    return (
        f"| {number:,} | {bare[0]:.1f} | {seconds:.1f} | {seconds * 1e3 / number:.2f} | {tenth:.0f} | {end:.0f} | {each:.1f} | {peak:.0f} |"
    )


def train_row(whole: Path, number: int) -> str:
    """A line of the second table."""
    from tests import tiny

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "images").mkdir()
        for one in range(number):
            os.link(whole / f"{one:06d}.jpg", place / "images" / f"{one:06d}.jpg")
        base = tiny.tiny_sd1(place / "base")
        words = [str(base), str(place / "images"), str(place / "runs"), json.dumps(STEPS), str(BATCH)]
        home = {**os.environ, "LORALOOM_HOME": str(place / "home")}
        done = subprocess.run([sys.executable, "-c", TRAIN, *words], capture_output=True, text=True, check=True, env=home)
    found = json.loads(done.stdout.splitlines()[-1])
    return f"| {number:,} | " + " | ".join(f"{found[str(step)]:.0f}" for step in STEPS) + " |"


def main() -> None:
    """Print the tables."""
    folder, *given = sys.argv[1:]
    numbers = sorted(int(number) for number in given if number != "train") or (() if given else NUMBERS)
    whole = Path(folder) / "whole"
    write_set(whole, max(*numbers, *STREAMED))
    head = "images | bare, CPU s | lint, CPU s | ms an image | MiB after a tenth | MiB after the last | KiB an image between | peak MiB"
    print(f"| {head} |\n|{'---|' * 8}" if numbers else "", flush=True)
    for number in numbers:
        print(lint_row(part_of(whole, number), number), flush=True)
    print(f"\n| images | {' | '.join(f'MiB after {step} steps' for step in STEPS)} |\n|---|{'---|' * len(STEPS)}")
    for number in STREAMED:
        print(train_row(whole, number), flush=True)


if __name__ == "__main__":
    main()
