"""Merges by several tools, alternating, each in a process of its own: CPU seconds, wall, memory with mapped pages apart.

python bench/merge/models.py /tmp/models --kind sd15 --mib 1300
python bench/merge/run.py /tmp/models --repeats 3 --out /tmp/merge.json \\
    --python sd_mecha=/tmp/mecha/bin/python --python mergekit=/tmp/mergekit/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
OURS = ("floor", "loraloom", "unhashed", "naive")


def measure(tool: str, method: str, sources: list[Path], scratch: Path, python: str) -> dict[str, Any]:
    """One run: seconds of CPU and wall, MiB at most: anonymous (the process's own) and all (with mapped files)."""
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads fills with progress bars, and its writer waits for ever
        found = {
            "tool": tool,
            "method": method,
            **_run([tool, method, str(scratch / "out.safetensors"), *map(str, sources)], errors, python),
        }
    for left in scratch.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return found


def _run(arguments: list[str], errors: IO[bytes], python: str) -> dict[str, Any]:
    """The figures of one process, or its last words."""
    began = time.monotonic()
    process = subprocess.Popen(
        [python, str(HERE / "contenders.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]) if arguments[0] in OURS else ""},
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )
    anonymous = whole = 0.0
    while process.poll() is None:
        seen = memory(process.pid)
        anonymous, whole = max(anonymous, seen[0]), max(whole, seen[1])
        time.sleep(0.02)
    usage = children()
    if process.returncode:
        errors.seek(0)
        reported = errors.read().decode(errors="replace").strip()
        return {"error": reported.splitlines()[-1] if reported else f"exit {process.returncode}"}
    return {"cpu": usage, "wall": time.monotonic() - began, "anonymous_mib": anonymous, "rss_mib": whole}


_spent = 0.0


def children() -> float:
    """CPU seconds of the child that ended since the last call."""
    global _spent
    times = os.times()
    total = times.children_user + times.children_system
    last, _spent = total - _spent, total
    return last


def memory(process: int) -> tuple[float, float]:
    """(anonymous, all resident) MiB of a process now."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return int(lines["RssAnon"].split()[0]) / 1024, int(lines["VmRSS"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return 0.0, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder that models.py wrote")
    parser.add_argument("--methods", default="weighted_sum,ties")
    parser.add_argument("--tools", default=",".join(OURS), help="of floor, loraloom, unhashed, naive; the others come by --python")
    parser.add_argument(
        "--python", action="append", default=[], metavar="TOOL=PYTHON", help="the interpreter that has sd_mecha or mergekit"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where outputs are written and removed; default: beside the models")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    files = sorted(arguments.models.glob("*.safetensors"))
    pythons = dict(one.split("=", 1) for one in arguments.python)
    tools = [*arguments.tools.split(","), *pythons]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch or arguments.models) as scratch:
        for repeat in range(arguments.repeats):
            for method in ["start", *arguments.methods.split(",")]:
                for tool in tools:  # alternating, so that what else runs on the machine meets all of them
                    sources = files[:2] if method == "weighted_sum" else files[:3]
                    rows.append({"repeat": repeat, **measure(tool, method, sources, Path(scratch), pythons.get(tool, sys.executable))})
                    print(rows[-1], flush=True)
    print(table(rows, files[0].stat().st_size))
    if arguments.out:
        arguments.out.write_text(json.dumps({"file_bytes": files[0].stat().st_size, "runs": rows}, indent=2) + "\n")


def table(rows: list[dict[str, Any]], size: int) -> str:
    """Medians; what a tool spends before it merges is taken off, and the rest is divided by the floor's of the same method."""
    lines = [
        f"files of {size / (1 << 20):,.0f} MiB",
        "| method | tool | CPU s | start | rest | rest / floor | wall s | anonymous MiB | RSS MiB |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    starts = {tool: _median(rows, "start", tool).get("cpu", 0.0) for tool in dict.fromkeys(row["tool"] for row in rows)}
    for method in dict.fromkeys(row["method"] for row in rows if row["method"] != "start"):
        floor = 0.0
        for tool, start in starts.items():
            found = _median(rows, method, tool)
            if not found:
                continue
            rest = max(0.01, found["cpu"] - start)
            floor = floor or rest
            lines.append(
                f"| {method} | {tool} | {found['cpu']:.1f} | {start:.1f} | {rest:.2f} | {rest / floor:.2f} | {found['wall']:.0f}"
                f" | {found['anonymous_mib']:,.0f} | {found['rss_mib']:,.0f} |"
            )
    return "\n".join(lines)


def _median(rows: list[dict[str, Any]], method: str, tool: str) -> dict[str, float]:
    good = [row for row in rows if row["method"] == method and row["tool"] == tool and "cpu" in row]
    return {name: statistics.median(row[name] for row in good) for name in ("cpu", "wall", "anonymous_mib", "rss_mib")} if good else {}


if __name__ == "__main__":
    main()
