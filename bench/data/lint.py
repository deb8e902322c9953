"""`loraloom data lint` against the bare decode rate: CPU seconds and memory on sets of generated photographs.

    python -m bench.data.lint FOLDER [NUMBER SIDE ...]      write and measure the sets, print the table

Bare is what nothing can do without: read each file, its sha256, Pillow's decode. Both are measured in processes of their own, one after the
other and three times; the better time of each counts. Images are JPEGs of quality 90 with the spectrum of photographs, two in a hundred
of them near duplicates; each has a caption of 20 words. A set is written once and kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BARE = """
import hashlib, io, sys
from pathlib import Path
from PIL import Image
for file in sorted(file for file in Path(sys.argv[1]).iterdir() if file.suffix in (".jpg", ".png")):
    data = file.read_bytes()
    hashlib.sha256(data).hexdigest()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
"""
LINT = """
import sys
from train.data.lint import lint
from train.settings.data import DataConfig
found = lint(DataConfig(path=sys.argv[1], trigger="zwxman"))
assert not found.faults and len(found.samples) == int(sys.argv[2]), found.faults[:3]
"""
MEASURE = """
import json, resource
used = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/status") as status:  # ru_maxrss begins at what the parent had
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([used.ru_utime + used.ru_stime, peak / 1024]))
"""
CAPTION = "a photo of zwxman in the old town near green hills under grey clouds with long red coats and small dogs"
POOL = 64  # textures, of which each image is one under a colour curve and a crop of its own


def write_set(folder: Path, number: int, side: int, *, png: int = 0) -> None:
    """The images and captions of a set, unless they are there; one of `png` images is a PNG (0: none)."""
    import numpy
    from PIL import Image

    done = folder / ".done"
    if done.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(side)
    span = side + side // 4
    across, down = numpy.fft.rfftfreq(span), numpy.fft.fftfreq(span)[:, None]
    falling = numpy.maximum(numpy.hypot(across, down), 1 / span) ** 1.25
    pool = []
    words = CAPTION.split()
    for _ in range(POOL):
        channels = [numpy.fft.irfft2(numpy.fft.rfft2(random.normal(size=(span, span))) / falling, (span, span)) for _ in range(3)]
        common = numpy.stack(channels, -1) * 0.4 + channels[0][..., None]
        pool.append(((common - common.mean()) / common.std()).astype(numpy.float32))
    for place in range(number):
        left, top = random.integers(0, span - side, 2)
        texture = pool[int(random.integers(POOL))][top : top + side, left : left + side]
        if random.random() < 0.5:
            texture = texture[:, ::-1]
        pixels = (
            (
                numpy.float32(random.normal(125, 30))
                + random.normal(0, 12, 3).astype(numpy.float32)
                + texture * numpy.float32(random.uniform(25, 60))
            )
            .clip(0, 255)
            .astype(numpy.uint8)
        )
        image = Image.fromarray(numpy.ascontiguousarray(pixels))
        names = [f"{place:06d}"] if place % 50 else [f"{place:06d}", f"{place:06d}-again"]
        for name, quality in zip(names, (90, 60), strict=False):
            if png and place % png == 0:
                image.save(folder / f"{name}.png", compress_level=1)
            else:
                image.save(folder / f"{name}.jpg", quality=quality)
            (folder / f"{name}.txt").write_text(" ".join([*words[:4], *random.permutation(words[4:]).tolist(), str(place)]))
    done.touch()


def measured(code: str, *arguments: str) -> tuple[float, float]:
    """(CPU seconds, peak MiB) of a process, its imports included."""
    done = subprocess.run([sys.executable, "-c", code + MEASURE, *arguments], capture_output=True, text=True, check=True)
    seconds, mib = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), float(mib)


def row(folder: Path, number: int, side: int) -> str:
    """A line of the table."""
    place = folder / f"{number}-{side}"
    write_set(place, number, side)
    files = len([*place.glob("*.jpg")])
    kib = sum(file.stat().st_size for file in place.glob("*.jpg")) / files / 1024
    runs = [(measured(BARE, str(place)), measured(LINT, str(place), str(files))) for _ in range(3)]
    bare = min(one[0][0] for one in runs)
    lint = min(one[1][0] for one in runs)
    mib = max(one[1][1] for one in runs)
    return f"| {files:,} | {side} x {side}, {kib:.0f} KiB | {bare:.1f} | {lint:.1f} | {bare / lint:.2f} | {mib:.0f} |"


def main() -> None:
    """Print the table."""
    folder, *numbers = sys.argv[1:]
    sizes = [int(number) for number in numbers] or [2000, 512, 2000, 1024, 20000, 512]
    print("| images | size | bare, CPU s | lint, CPU s | share of the bare rate | lint, peak MiB |\n|---|---|---|---|---|---|")
    for number, side in zip(sizes[::2], sizes[1::2], strict=True):
        print(row(Path(folder), number, side), flush=True)


if __name__ == "__main__":
    main()
