"""Peak memory of registry commands and of a grid's plan over a tenth of N checkpoints and over all of them, each in a process of its own.

python bench/registry/memory.py FOLDER [N [BASES]]

The checkpoints are files of the size and names of Stable Diffusion 1.5 without data (`library.py`) and, for the plan, as many folders
with links to the files of `pocket`; nothing is on the disk but headers and links. A home for each number; `scan` is the first one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.registry.library import checkpoints
from registry.home import pocket_dir

COMMANDS: dict[str, list[str]] = {
    "registry scan": ["registry", "scan", "{files}"],
    "registry scan, nothing changed": ["registry", "scan", "{files}"],
    "registry scan of folders": ["registry", "scan", "{folders}"],
    "registry list": ["registry", "list"],
    "registry list --json": ["registry", "list", "--json"],
    "registry list --all": ["registry", "list", "--all"],
    "registry find checkpoint": ["registry", "find", "checkpoint"],
    "registry show": ["registry", "show", "base-00000"],
    "grid dry_run, a base a row": ["grid", "dry_run=true", "prompt=cat", "steps=1", "axes.base=[{bases}]"],
}


def folders(place: Path, number: int) -> list[str]:
    """Folders of a diffusers model by links to the embedded one's files; their names."""
    names = [f"base-{one:05d}" for one in range(number)]
    files = [file for file in pocket_dir().rglob("*") if file.is_file() and file.parent != pocket_dir() / "card"]
    for name in names:
        for file in files:
            there = place / name / file.relative_to(pocket_dir())
            there.parent.mkdir(parents=True, exist_ok=True)
            if not there.exists():
                os.link(file, there)
    return names


PROGRAM = """
import resource, sys
from loraloom.cli import main
status = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/status") as file:  # ru_maxrss begins at what the parent had
    peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
print(status, used.ru_utime + used.ru_stime, peak / 1024, file=sys.stderr)
"""


def peak(command: list[str], home: Path) -> tuple[float, float]:
    """(CPU seconds, MiB at the peak) of a command line."""
    words = [sys.executable, "-c", PROGRAM, *command]
    home.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"LORALOOM_HOME": str(home)}
    said = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True, check=True).stderr
    status, seconds, mib = said.splitlines()[-1].split()
    if status != "0":
        raise SystemExit(f"{' '.join(command)[:200]} ended with {status}: {said[-2000:]}")
    return float(seconds), float(mib)


def main() -> None:
    """Print a row a command."""
    folder = Path(sys.argv[1]).resolve()
    number, planned = (int(word) for word in (*sys.argv[2:], "1000", "100")[:2])
    found: dict[str, list[tuple[float, float]]] = {}
    for count, shown in ((number // 10, planned // 10), (number, planned)):
        place = folder / str(count)
        if not place.is_dir():
            checkpoints(place / "files", count)
        bases = ",".join(folders(place / "folders", count)[:shown])
        for name, command in COMMANDS.items():
            filled = [word.format(files=place / "files", folders=place / "folders", bases=bases) for word in command]
            found.setdefault(name, []).append(peak(filled, place / "home"))
    print(f"A tenth of {number:,} checkpoints, and all; of {planned:,} bases of a plan.\n")
    print(f"| command | CPU s | CPU s, all | MiB | MiB, all | growth |\n|{'---|' * 6}")
    for name, ((first, small), (last, large)) in found.items():
        print(f"| `{name}` | {first:.2f} | {last:.2f} | {small:.0f} | {large:.0f} | {large / small - 1:+.0%} |")


if __name__ == "__main__":
    main()
