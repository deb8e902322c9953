"""A training step beside the bare peft loop, in one process: the same images, prompts and rank, the sides in turn.

    OMP_NUM_THREADS=1 python -m bench.train.steps                      the embedded base, 64 pixels, batches of 1 and 4
    OMP_NUM_THREADS=1 python -m bench.train.steps --base tiny-sdxl     a small SDXL whose attention has 1,024 tokens: 256 pixels

The bare loop has latents and states of texts ready, and does no more than add noise, call diffusers' UNet with peft's layers, take the
mean squared error, its gradient and a step of torch's AdamW. Ours is the step of a run: it also draws each latent from its cached
posterior, clips, and keeps each image's loss. The bound is the bare loop without a LoRA: its passes, with a gradient for one layer so that
they go as far back, and a clipped step of AdamW over one buffer of as many numbers. On the embedded base in batches of 4 the script of
bench.train.compare has its turn too, which encodes images and captions anew. CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.train import compare
from registry.progress import silent
from registry.store import Store
from tests import tiny
from train import run
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
from train.execute import make_accelerator
from train.loop.batches import Batch
from train.loop.prepare import Work, prepare

DATA = Path(__file__).resolve().parents[2] / "datasets" / "ink"
LR = 1e-3
Step = Callable[[], object]


def ready(base: str, side: int, batch: int, lora: LoraConfig, place: Path) -> Work:
    """A run that is ready to train, as `loraloom train` makes it."""
    nothing = place / "nothing"
    nothing.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        name="bench",
        base=base,
        data=DataConfig(path=str(DATA)),
        resolution=side,
        batch_size=batch,
        steps=10_000,
        lora=lora,
        optim=OptimConfig(lr=LR),
        schedule=ScheduleConfig(name="constant", warmup=0.0),
        checkpoint=CheckpointConfig(every=10_000),
        heldout=HeldoutConfig(every=10_000),
        preview=PreviewConfig(prompts=[]),
        device="cpu",
    )
    plan = run.plan(config, Store(place / "home"))
    folder = place / f"{lora.product}-{batch}"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return prepare(plan, folder, make_accelerator(plan), report=silent, out=lambda _line: None)


def steps_of(work: Work) -> Step:
    """The next step of a run."""
    steps = iter(range(10_000))

    def step() -> None:
        float(work.state.step(next(steps)).losses.mean())

    return step


def bare(work: Work, folder: Path, lora: LoraConfig) -> Step:
    """The same denoiser, latents and states of texts in a loop of diffusers and peft alone."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig as Peft

    unet = UNet2DConditionModel.from_pretrained(folder / "unet").requires_grad_(False)
    wanted = work.plan.targets if isinstance(work.plan.targets, str) else list(work.plan.targets)
    unet.add_adapter(Peft(r=lora.rank, lora_alpha=lora.rank, target_modules=wanted))
    optimizer = torch.optim.AdamW([weight for weight in unet.parameters() if weight.requires_grad], LR)

    def learn() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return _loop(work, folder, unet, learn)


def bound(work: Work, folder: Path) -> Step:
    """The passes of `bare` without a LoRA, and the least that clipping and AdamW take."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet").requires_grad_(False)
    first = work.state.weights[0][0].partition(".")[2].partition(".lora_")[0]
    unet.get_submodule(first).requires_grad_(True)
    flat = torch.nn.Parameter(torch.zeros(sum(weight.numel() for _, weight in work.state.weights)))
    flat.grad = torch.randn_like(flat)
    optimizer = torch.optim.AdamW([flat], LR, fused=True)

    def learn() -> None:
        torch.nn.utils.clip_grad_norm_([flat], 1.0)
        optimizer.step()
        unet.zero_grad()

    return _loop(work, folder, unet, learn)


def _loop(work: Work, folder: Path, unet: Any, learn: Step) -> Step:
    """Noise, a prediction, its error and the gradients, then what is learned of them."""
    from diffusers import DDPMScheduler

    state = work.state
    unet.train()
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    batches: list[Batch] = [state.order.step(step)[0][0] for step in range(8)]
    kept = []
    for batch in batches:
        clean = state.latents.view(batch.items, [0] * len(batch.items)).posterior.mean
        text: Any = state.texts.drawn([state.items[item].image for item in batch.items], 0, batch.places)
        height, width = (side * state.parts.latent_factor for side in clean.shape[2:])
        kept.append((clean, state.family.complete(state.parts, text, height=height, width=width, guidance=1.0)))
    turn = iter(range(10_000))

    def step() -> None:
        clean, states = kept[next(turn) % len(kept)]
        noise, timesteps = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
        noisy, added = scheduler.add_noise(clean, noise, timesteps), {}
        if "time_ids" in states:
            added = {"added_cond_kwargs": {"text_embeds": states["pooled"], "time_ids": states["time_ids"]}}
        predicted = unet(noisy, timesteps, states["embeds"], **added).sample
        loss = torch.nn.functional.mse_loss(predicted, noise)
        loss.backward()
        learn()
        loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="pocket", help="pocket or tiny-sdxl")
    parser.add_argument("--side", type=int, help="pixels (default: 64, of tiny-sdxl 256)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default="attention")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=4, help="of each side in a round")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        for batch in given.batches:
            _compare(given, batch, Path(place))


def _compare(given: argparse.Namespace, batch: int, place: Path) -> None:
    from registry.home import pocket_dir

    if given.base == "pocket":
        base, folder, side = "pocket", pocket_dir(), given.side or 64
    else:
        folder = tiny.tiny_sdxl(place / "sdxl", standard=True)
        base, side = str(folder), given.side or 256
    sides: dict[str, Step] = {}
    for product in ("plain", "auto"):
        lora = LoraConfig(rank=given.rank, targets=given.targets, product=product)
        work = ready(base, side, batch, lora, place)
        if not sides:
            sides["bare"], sides["bound"] = bare(work, folder, lora), bound(work, folder)
            if (given.base, side, batch, given.rank) == ("pocket", 64, compare.BATCH, compare.RANK):
                sides["script"] = compare.plain_step("cpu")
        sides[f"ours, lora.product={product}"] = steps_of(work)
    milliseconds: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        step(), step()
    for _ in range(given.rounds):
        for name, step in sides.items():
            begun = time.process_time()
            for _ in range(given.steps):
                step()
            milliseconds[name].append(1000 * (time.process_time() - begun) / given.steps)
    for name, found in milliseconds.items():
        first = milliseconds["bare"]
        print(
            f"{given.base} {side} px, batch {batch}: {name:24} ms median {median(found):.1f} least {min(found):.1f}"
            f"   beside the bare loop {median(found) / median(first):.3f} {min(found) / min(first):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
