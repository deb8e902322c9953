"""A UNet of SDXL's size (2.6 billion random weights), quantised and swapped, trained through a cap of 2 GiB on the device's memory.

    OMP_NUM_THREADS=1 python -m bench.swap.sdxl FOLDER [int8 | nf4 | none] [CAP_MIB]

FOLDER (made once) holds the model, 5.2 GB in bf16; its text encoders have SDXL's widths and two layers, its VAE is a tiny one. The run is
`loraloom train`'s own: plan, load, encode, three steps, save, load again on a fresh base and prove. `swap_blocks` is the least with which
the plan's steps fit the cap. On a CPU the device's memory is main memory, so the cap is put on the process: from the first step on it may
take no more anonymous memory than what it has then, less what lies on the device by then, and the cap (setrlimit RLIMIT_DATA). An
allocation beyond that is a MemoryError, and the run fails.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.memory.published import FOLDERS
from bench.random_model import MIB, Watch, memory, random_folder

PIXELS, STEPS, RANK = 64, 3, 16  # the tiny VAE halves twice: latents 16 x 16
WIDTHS = {"text_encoder": (768, 3072, 12), "text_encoder_2": (1280, 5120, 20)}


def make(place: Path) -> Path:
    """The folder."""
    import torch

    from tests.tiny import shared_folder

    unet = dict(FOLDERS["SDXL"][3]["unet"]) | {"sample_size": 16}
    encoders = {
        name: {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": heads, "num_hidden_layers": 2}
        for name, (width, inner, heads) in WIDTHS.items()
    }
    encoders["text_encoder_2"]["projection_dim"] = 1280
    return random_folder(place, shared_folder("sdxl"), {"unet": unet, **encoders}, dtype=torch.bfloat16)


def images(place: Path) -> Path:
    """Three images of datasets/ink, without the set's held-out ones."""
    place.mkdir()
    for file in sorted(Path("datasets/ink").glob("*.png"))[:STEPS]:
        for one in (file, file.with_suffix(".txt")):
            shutil.copy(one, place)
    return place


def settings(base: Path, place: Path, dtype: str | None) -> Any:
    """Three steps at 64 pixels, without previews and measuring."""
    from train.config import DataConfig, HeldoutConfig, LoraConfig, Precision, PreviewConfig, TrainConfig

    return TrainConfig(
        name="large",
        base=str(base),
        data=DataConfig(path=str(images(place / "images"))),
        heldout=HeldoutConfig(generic=[]),
        preview=PreviewConfig(prompts=[]),
        resolution=PIXELS,
        batch_size=1,
        steps=STEPS,
        lora=LoraConfig(rank=RANK),
        precision=Precision.bf16,
        base_dtype=dtype,
        gradient_checkpointing=True,
        device="cpu",
        out=str(place / "runs"),
    )


def least_swap(config: Any, store: Any, cap: int) -> Any:
    """The plan with the fewest swapped blocks whose steps fit the cap."""
    from train import run

    first = run.plan(config, store)
    assert first.estimate.swap is not None
    low, high = 0, len(first.estimate.swap.sizes)
    while low < high:
        middle = (low + high) // 2
        if run.plan(replace(config, swap_blocks=middle), store).estimate.stages["steps are taken"] <= cap:
            high = middle
        else:
            low = middle + 1
    return run.plan(replace(config, swap_blocks=low), store)


def main(place: Path, dtype: str | None, cap: int) -> None:
    import loraloom.console  # noqa: F401  # what the command imports
    from registry.store import Store
    from train import run

    base = make(place)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "home")
        plan = least_swap(settings(base, Path(scratch), dtype), store, cap)
        swap = plan.estimate.swap
        assert swap is not None
        stage = plan.estimate.stages["steps are taken"]
        held = sum(size for name, size in plan.estimate.memory.items() if name in ("unet", "slots of swapped blocks"))
        print(f"{dtype or 'bf16'}: {len(swap.swapped)} of {len(swap.sizes)} blocks swapped, {swap.host_bytes / MIB:,.0f} MiB of them")
        print(f"planned on the device while steps are taken: {stage / MIB:,.0f} MiB of {cap / MIB:,.0f}", flush=True)
        before = memory()
        limits: list[int] = []

        def seen(tick: Any) -> None:
            watch.stage = tick.stage if tick.stage != "train" else f"step {tick.done + 1}"
            if tick.stage == "train" and tick.done == 0:
                limits.append(memory()["VmData"] - held + cap)
                resource.setrlimit(resource.RLIMIT_DATA, (limits[0], resource.RLIM_INFINITY))
            if tick.stage == "train" and tick.done == tick.total:
                resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                watch.stage = "save and prove"

        begun = time.process_time()
        with Watch() as watch:
            outcome = run.run(plan.config, store, report=seen, out=lambda line: print(f"  {line}", flush=True))
        assert limits, "the cap was never set"
        print(f"before the run (imports, plan): anonymous {before['RssAnon'] / MIB:,.0f} MiB, files {before['RssFile'] / MIB:,.0f} MiB")
        print("| stage | anonymous at its peak, MiB | with pages of files, MiB | CPU s |\n|---|---|---|---|")
        for name, row in watch.peaks.items():
            print(f"| {name} | {row['anonymous'] / MIB:,.0f} | {row['resident'] / MIB:,.0f} | {row['seconds']:.0f} |")
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"peak RSS {largest / MIB:,.0f} MiB, CPU {time.process_time() - begun:.0f} s, adapter {outcome.result['files']}")
        print(json.dumps({"rows": [(round(t), stage, a // MIB, r // MIB) for t, stage, a, r in watch.rows]}))


if __name__ == "__main__":
    chosen = sys.argv[2] if len(sys.argv) > 2 else "int8"
    main(Path(sys.argv[1]), None if chosen == "none" else chosen, int(sys.argv[3] if len(sys.argv) > 3 else 2048) * MIB)
