"""A whole training run beside the plain diffusers + peft script: CPU seconds and peak memory of processes, imports and all.

    OMP_NUM_THREADS=1 python -m bench.train.whole --steps 1 100 --repeats 3

Ours is `loraloom train` on the ink set without its held-out pairs, without previews, in a home of its own, which is empty (cold) or has
the images and prompts of the run before (warm). It plans, encodes, trains, writes both files, proves them on a fresh base, draws the
curves and writes the report. The script is the plain side of bench.train.compare: it loads the pipeline, trains, and encodes each image
and caption anew in every step.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.train.compare import BATCH, DATA, LR, RANK


def cpu_seconds(command: list[str], folder: Path, home: Path) -> float:
    """CPU seconds of a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LORALOOM_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "ink").mkdir()
        for file in (*DATA.glob("*.png"), *DATA.glob("*.txt")):
            shutil.copy(file, folder / "ink")
        for steps in given.steps:
            found: dict[str, list[float]] = defaultdict(list)
            settings = (
                f"data.path=ink steps={steps} batch_size={BATCH} lora.rank={RANK} optim.lr={LR} resolution=64 device=cpu preview.prompts=[]"
            )
            train = [sys.executable, "-m", "loraloom", "train", *settings.split()]
            script = f"-m bench.train.compare --side plain --steps {steps} --device cpu --folder {folder}"
            for repeat in range(given.repeats):
                home = folder / f"home-{steps}-{repeat}"
                found["script"].append(cpu_seconds([sys.executable, *script.split()], folder, home))
                found["ours, cold"].append(cpu_seconds(train, folder, home))
                found["ours, warm"].append(cpu_seconds(train, folder, home))
            for side, values in found.items():
                ratios = f"{median(values) / median(found['script']):.2f} ({min(values) / min(found['script']):.2f})"
                print(
                    f"{steps} steps, {side:10}: CPU s median {median(values):.1f} least {min(values):.1f}, beside the script {ratios}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
