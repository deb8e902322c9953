"""Scans of a library beside the bare work they cannot do without, each side in a process of its own: CPU seconds, wall, memory.

python bench/registry/library.py /tmp/alike --adapters 10000
python bench/registry/library.py /tmp/different --adapters 10000 --different
python bench/registry/library.py /tmp/large --checkpoints 50
python bench/registry/run.py /tmp/alike /tmp/different /tmp/large

The sides: `walk` (os.walk and os.stat of every file), `headers` (walk, open, read the header, json.loads), `scan` (a first scan),
`rescan` (nothing changed), `rescan 10` (ten files written to), `start` (a scan of an empty folder: imports and the index); with
--hash FILE also `sha256` (hashlib alone), `scan --hash` (what does not wait for a question) and `all hashes`. CPU seconds are those of
the work: what a process of that kind spends on an empty folder is taken off.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WALK = "for r, _, names in os.walk(folder):\n    for n in names: os.stat(os.path.join(r, n))"
HEADERS = """for r, _, names in os.walk(folder):
    for n in names:
        with open(os.path.join(r, n), "rb") as f:
            json.loads(f.read(int.from_bytes(f.read(8), "little")))"""
SCAN = "from pathlib import Path\nfrom registry.store import Store\nStore(Path(home)).scan(folder)"
SHA256 = """h, b = hashlib.sha256(), memoryview(bytearray(8 << 20))
with open(folder, "rb", buffering=0) as f:
    while c := f.readinto(b): h.update(b[:c])"""
HASHES = "from pathlib import Path\nfrom registry.formats.hashing import hash_file\nhash_file(Path(folder))"
FIRST = HASHES.replace("Path(folder))", "Path(folder), whole=False)")


def side(program: str, folder: Path, home: Path) -> tuple[float, float, float]:
    """(CPU seconds, wall seconds, MiB at most) of a program in a process of its own."""
    begun = time.monotonic()
    code = f"import hashlib, json, os\nfolder, home = {str(folder)!r}, {str(home)!r}\n{program}"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"a side failed on {folder}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begun, usage.ru_maxrss / 1024


def row(name: str, found: tuple[float, float, float], less: float = 0.0, floor: float | None = None) -> str:
    cpu = max(found[0] - less, 1e-3)
    times = f"{cpu / floor:6.1f} x" if floor else ""
    return f"  {name:<12} {cpu:8.2f} CPU s {found[1]:8.2f} wall s {found[2]:7.0f} MiB {times}"


def touch_ten(folder: Path) -> None:
    """Write to ten files of a library: another title in the header, the same tensors."""
    from registry.formats.safetensors_header import header_bytes, read_header

    for path in sorted(folder.rglob("*.safetensors"))[:10]:
        header = read_header(path)
        raw, _ = header_bytes(header.tensors, {**header.metadata, "modelspec.title": f"again {time.time_ns()}"})
        with path.open("wb") as file:
            file.write(raw)
            file.truncate(len(raw) + header.file_bytes - header.data_start)


def library(folder: Path) -> None:
    """All sides on one library."""
    with tempfile.TemporaryDirectory() as scratch:
        home, empty = Path(scratch, "home"), Path(scratch, "empty")
        empty.mkdir()
        start, python = side(SCAN, empty, Path(scratch, "other")), side("", empty, home)
        side(HEADERS, folder, home)  # what is read is in the cache for every side
        walk, headers = side(WALK, folder, home), side(HEADERS, folder, home)
        bare, floor = max(walk[0] - python[0], 1e-3), max(headers[0] - python[0], 1e-3)
        count = sum(len(names) for _, _, names in os.walk(folder))
        lines = [f"{folder.name}: {count} files", row("start", start), row("walk", walk, python[0]), row("headers", headers, python[0])]
        lines.append(row("scan", side(SCAN, folder, home), start[0], floor) + " headers")
        lines.append(row("rescan", side(SCAN, folder, home), start[0], bare) + " walk")
        touch_ten(folder)
        lines.append(row("rescan 10", side(SCAN, folder, home), start[0], bare) + " walk")
    print("\n".join(lines), flush=True)


def hashing(path: Path) -> None:
    """The rate of all hashes beside that of sha256 alone."""
    mib = path.stat().st_size / (1 << 20)
    start = side("import registry.formats.hashing", path, path)
    side(SHA256, path, path)
    for name, program, less in (("sha256", SHA256, 0.0), ("scan --hash", FIRST, start[0]), ("all hashes", HASHES, start[0])):
        found = side(program, path, path)
        print(row(name, found, less), f"{mib / (found[0] - less):7.0f} MiB a CPU s, {mib / found[1]:.0f} MiB/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--hash", type=Path, metavar="FILE", help="a large file to hash")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        library(folder.resolve())
    if arguments.hash:
        hashing(arguments.hash.resolve())


if __name__ == "__main__":
    main()
