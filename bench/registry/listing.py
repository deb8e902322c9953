"""CPU seconds and peak memory of `registry list` over the index of a home, and of the same over an empty one.

python bench/registry/library.py /tmp/alike --adapters 100000
LORALOOM_HOME=/tmp/home python -m loraloom registry scan /tmp/alike
LORALOOM_HOME=/tmp/home python bench/registry/listing.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

LISTINGS = ([], ["--offset", "50000"], ["--json"], ["--all"])


def measured(words: list[str], home: str) -> str:
    """CPU seconds, MiB at the peak and MB written, of one listing in a process of its own."""
    with tempfile.TemporaryFile() as out:
        command = [sys.executable, "-m", "loraloom", "registry", "list", *words]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=os.environ | {"LORALOOM_HOME": home})
        _, status, used = os.wait4(process.pid, 0)
        size = out.seek(0, os.SEEK_END)
    assert status == 0, f"{command} ended with {status}"
    return f"| {used.ru_utime + used.ru_stime:.2f} | {used.ru_maxrss / 1024:.0f} | {size / 1e6:.1f} |"


def main() -> None:
    """Print a row a listing."""
    home = os.environ["LORALOOM_HOME"]
    print("| listing | CPU s | MiB | MB written |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as empty:
        measured([], empty)  # makes the index
        print(f"| `registry list` of an empty index {measured([], empty)}")
    for words in LISTINGS:
        print(f"| `{' '.join(['registry list', *words])}` {measured(words, home)}")


if __name__ == "__main__":
    main()
