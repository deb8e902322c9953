"""Our training loop beside the plain diffusers + peft loop, on the embedded base and the ink set.

    .venv/bin/python -m bench.train.compare --steps 150 --repeats 3

Both train rank-16 attention LoRA at batch 4 and 64 pixels in fp32 with AdamW, clipping and no gradient checkpointing, each in a process
of its own with one thread, alternating. The plain loop is what diffusers' text-to-image example does: it decodes, encodes the
image and the caption anew in every step. Previews and held-out loss are off in ours. CPU seconds are the figure to read: wall time on
a shared machine is noise.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

BATCH, RANK, LR = 4, 16, 1e-3
DATA = Path(__file__).resolve().parents[2] / "datasets" / "ink"
WARM = 10  # steps left out of the rate


def actual(steps: int, folder: Path, device: str) -> dict[str, float]:
    """Seconds of the steps after the first WARM, from the run's own ticks."""
    from registry.progress import Tick
    from registry.store import Store
    from train.config import (
        CheckpointConfig,
        DataConfig,
        HeldoutConfig,
        LoraConfig,
        OptimConfig,
        PreviewConfig,
        ScheduleConfig,
        TrainConfig,
    )
    from train.run import run

    marks: dict[int, tuple[float, float]] = {}

    def report(tick: Tick) -> None:
        if tick.stage == "train":
            marks[tick.done] = time.process_time(), time.perf_counter()

    empty = folder / "nothing"
    config = TrainConfig(
        name="bench",
        data=DataConfig(path=str(DATA)),
        steps=steps,
        batch_size=BATCH,
        lora=LoraConfig(rank=RANK),
        optim=OptimConfig(lr=LR),
        schedule=ScheduleConfig(name="constant", warmup=0.0),
        checkpoint=CheckpointConfig(every=steps),
        heldout=HeldoutConfig(every=steps),
        preview=PreviewConfig(prompts=[], every=steps),
        device=device,
        out=str(empty),
    )
    run(config, Store(folder / "home"), report=report)
    done = sorted(step for step in marks if WARM <= step < steps)  # the last step also writes
    (cpu0, wall0), (cpu1, wall1) = marks[done[0]], marks[done[-1]]
    return rates(done[-1] - done[0], cpu1 - cpu0, wall1 - wall0)


def plain(steps: int, folder: Path, device: str) -> dict[str, float]:
    """The same with diffusers and peft alone, as the examples have it."""
    import torch

    torch.manual_seed(0)
    step = plain_step(device)
    cpu = wall = 0.0
    for number in range(steps):
        if number == WARM:
            cpu, wall = time.process_time(), time.perf_counter()
        step()
    return rates(steps - WARM, time.process_time() - cpu, time.perf_counter() - wall)


def plain_step(device: str) -> Callable[[], object]:
    """A step of the script: it decodes the images and encodes them and their captions anew."""
    import random

    import numpy
    import torch
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from peft import LoraConfig
    from PIL import Image

    from registry.home import pocket_dir

    pipe = StableDiffusionPipeline.from_pretrained(pocket_dir(), safety_checker=None, dtype=torch.float32)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).to(device)
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    weights = [weight for weight in pipe.unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, LR)
    files, order = sorted(DATA.glob("*.png")), random.Random(0)

    def step() -> None:
        batch = order.sample(files, BATCH)
        images = [numpy.asarray(Image.open(file).convert("RGB").resize((64, 64)), numpy.float32) / 127.5 - 1 for file in batch]
        pixels = torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2).to(device)
        latents = pipe.vae.encode(pixels).latent_dist.sample() * pipe.vae.config.scaling_factor
        captions = [file.with_suffix(".txt").read_text() for file in batch]
        ids = pipe.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        states = pipe.text_encoder(ids)[0]
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (BATCH,), device=device)
        target = scheduler.get_velocity(latents, noise, timesteps)
        predicted = pipe.unet(scheduler.add_noise(latents, noise, timesteps), timesteps, states).sample
        loss = torch.nn.functional.mse_loss(predicted, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # the progress bar of the example reads it in every step

    return step


def rates(steps: int, cpu: float, wall: float) -> dict[str, float]:
    """CPU and wall milliseconds a step, and the process's peak memory, the device's left out."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {"cpu_ms_a_step": 1000 * cpu / steps, "wall_ms_a_step": 1000 * wall / steps, "peak_mib": peak}


def child(side: str, steps: int, device: str) -> dict[str, float]:
    """One side in a process of its own, one thread, with an empty home."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "LORALOOM_HOME": home, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "bench.train.compare", "--side", side, "--steps", str(steps), "--folder", home, "--device", device]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--side", choices=("ours", "plain"))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps({"ours": actual, "plain": plain}[arguments.side](arguments.steps, arguments.folder, arguments.device)))
        return
    found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    for repeat in range(arguments.repeats):
        for side, rows in found.items():
            rows.append(child(side, arguments.steps, arguments.device))
            print(repeat + 1, side, json.dumps(rows[-1]), flush=True)
    for side, rows in found.items():
        figures = {key: [row[key] for row in rows] for key in rows[0]}
        print(f"{side:6}", "  ".join(f"{key} min {min(values):.1f} median {median(values):.1f}" for key, values in figures.items()))


if __name__ == "__main__":
    main()
