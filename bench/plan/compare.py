"""Plan against measured: seconds by part and peak memory of a small run.

python -m bench.plan.compare pocket 4 64 20      base, batch_size, resolution, steps; a base is a name or a path

Clocks count CPU seconds with one thread (OMP_NUM_THREADS=1), so that other work on the machine does not matter; a plan counts
wall-clock seconds, which are the same on a machine that does nothing else.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from registry.store import Store
from train import run
from train.config import DataConfig, TrainConfig
from train.loop import loop, pace
from train.plan import speed

CPU_CLOCK = SimpleNamespace(perf_counter=time.process_time)
PAUSES = {"held-out loss": ("held-out", "training images"), "previews": ("previews",)}  # part of the plan -> pauses of the loop


class Timed(loop.Loop):
    """The loop of the run, kept to be read afterwards with the CPU seconds that it took."""

    last: Timed
    took: float
    stepping: float  # of that, in the steps

    def run(self, start: int) -> None:
        Timed.last, begin = self, time.process_time()
        super().run(start)
        self.took, self.stepping = time.process_time() - begin, self.pace.steps / self.pace.rate


def compare(config: TrainConfig, home: Path) -> None:
    """Plan and run, and print both."""
    from train import execute

    for module in (pace, speed):
        vars(module)["time"] = CPU_CLOCK
    vars(execute)["Loop"] = Timed
    store = Store(home)
    plan = run.plan(config, store)
    planned: dict[str, float] = dict(plan.estimate.seconds or {})
    begin = time.process_time()
    run.run(config, store, out=lambda _line: None)
    whole = time.process_time() - begin
    paced = Timed.last.pace
    measured: dict[str, Any] = {
        part: sum(paced.pauses[kind].seconds for kind in kinds if kind in paced.pauses) for part, kinds in PAUSES.items()
    }
    measured |= {"steps": Timed.last.stepping, "start and proof": whole - Timed.last.took}
    for part, seconds in planned.items():
        print(f"{part:16} planned {seconds:7.1f} s   measured {measured.get(part, 0.0):7.1f} s")
    total, peak = sum(planned.values()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{'all':16} planned {total:7.1f} s   measured {whole:7.1f} s   ratio {total / whole:.2f}")
    memory = plan.estimate.total / 2**20
    print(f"{'memory':16} planned {memory:7.0f} MiB measured {peak / 2**20:7.0f} MiB ratio {memory * 2**20 / peak:.2f}")


if __name__ == "__main__":
    base, batch, side, steps = sys.argv[1], *map(int, sys.argv[2:])
    with tempfile.TemporaryDirectory() as place:
        compare(
            TrainConfig(
                name="plan",
                base=base,
                data=DataConfig(path="datasets/ink"),
                steps=steps,
                batch_size=batch,
                resolution=side,
                device="cpu",
                out=f"{place}/runs",
            ),
            Path(place) / "home",
        )
