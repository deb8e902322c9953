"""Training steps of large models with random weights on a GPU: what swap and offloading cost, SDXL beside diffusers' loop, peaks.

    python -m bench.gpu.steps swap     a transformer of FLUX.1's blocks, half as deep: none, half of the blocks swapped, activations away
    python -m bench.gpu.steps sdxl     a LoRA step on SDXL beside that of diffusers' train_text_to_image_lora_sdxl.py
    ... --dry                          the same lines on the CPU with tiny models: to see that they run, not to be read as figures

Weights are drawn on the device, so nothing is read from a disk. Each row: seconds of a step (median), most bytes that torch allocated, and
what the plan's estimate has for the same step.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.memory.published import FOLDERS
from bench.memory.table import folder_of
from registry.families import FAMILIES
from registry.family import Family
from registry.parts import Parts
from registry.swapping.activations import ActivationOffload
from registry.swapping.blocks import blocks_of
from registry.swapping.swap import BlockSwap
from tests.tiny import tiny_parts
from train.config import LoraConfig, Precision, PreviewConfig, TrainConfig
from train.lora import add_loras, enable_gradient_checkpointing, matched, parameter_count, targets_of
from train.plan.estimate import Model, Weights, estimate
from train.plan.traces import Traces

GIB = 2**30
DEPTH = {"num_layers": 10, "num_single_layers": 19}  # of FLUX.1's 19 and 38


@dataclass
class Size:
    """A model on the device, the size of its images, and how often its step is timed."""

    family: Family
    parts: Parts
    side: int
    steps: int
    batch: int


def on_the_device(title: str, device: torch.device, *, dry: bool, steps: int, batch: int = 1, **changed: Any) -> Size:
    """A published model's structure with random weights in bf16; dry: the tiny build of its family in fp32."""
    name, _variant, side, configs = FOLDERS[title]
    family = FAMILIES[name]
    if dry:
        tiny_family, parts = tiny_parts(name)
        return Size(tiny_family, parts, 64, 2, batch)
    for settings in configs.values():
        settings.update({key: value for key, value in changed.items() if key in settings})
    with tempfile.TemporaryDirectory() as place:
        parts = family.load(folder_of(title, Path(place)), dtype=torch.float32, device="meta")
    for module in (parts.denoiser, parts.vae, *parts.text_encoders.values()):
        dtype = torch.float32 if module is parts.vae else torch.bfloat16
        draw(module, device, dtype)
    return Size(family, parts, side, steps, batch)


def draw(module: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Random weights of a sensible size in a module on the meta device."""
    for owner in module.modules():
        for name, weight in list(owner._parameters.items()):
            if weight is not None:
                made = torch.empty(weight.shape, device=device, dtype=dtype)
                drawn = (
                    torch.nn.init.normal_(made, std=0.02)
                    if weight.dim() > 1
                    else torch.nn.init.ones_(made)
                    if "norm" in name
                    else made.zero_()
                )
                owner._parameters[name] = torch.nn.Parameter(drawn, requires_grad=False)
        for name, buffer in list(owner._buffers.items()):
            if buffer is not None and buffer.device.type == "meta":
                real = buffer.is_floating_point()
                fresh = torch.zeros(buffer.shape, device=device, dtype=dtype if real else buffer.dtype)
                owner._buffers[name] = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape) if not real else fresh


class Ours:
    """A LoRA step as a run takes it: cached latents and texts, gradient checkpointing, AdamW in one kernel, clipping."""

    def __init__(self, size: Size, device: torch.device, *, swapped: int = 0, away: bool = False) -> None:
        self.size, self.device = size, device
        family, parts = size.family, size.parts
        self.config = TrainConfig(
            batch_size=size.batch,
            lora=LoraConfig(rank=16),
            gradient_checkpointing=True,
            swap_blocks=swapped,
            offload_activations=away,
            precision=Precision.bf16 if device.type == "cuda" else Precision.fp32,
            preview=PreviewConfig(prompts=[]),
        )
        self.states = texts(size, device)
        self.swap = BlockSwap(family, parts.denoiser, swapped) if swapped else None
        if self.swap is not None:
            parts.denoiser.to("cpu")
        made = add_loras(family, {family.denoiser: parts.denoiser}, self.config, targets_of(family, "attention"))
        self.weights = [weight for group in made.values() for _, weight in group]
        if self.swap is not None:
            self.swap.begin(device)
        parts.denoiser.to(device).train() if self.swap is None else parts.denoiser.train()
        enable_gradient_checkpointing(parts.denoiser)
        self.offload = ActivationOffload([parts.denoiser]) if away else None
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4, fused=True)
        cells = size.side // parts.latent_factor
        self.latents = torch.randn(size.batch, family.channels(parts), cells, cells)

    def step(self) -> None:
        """One optimizer step."""
        family, parts, size = self.size.family, self.size.parts, self.size
        noisy = self.latents.to(self.device, parts.dtype, non_blocking=True)
        times = torch.full((size.batch,), 500.0, device=self.device)
        with autocast(self.device), self.offload.keeping() if self.offload else nullcontext():
            complete = family.complete(parts, self.states, height=size.side, width=size.side, guidance=1.0)
            found = family.predict(parts, noisy, times, complete)
        found.float().square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def texts(size: Size, device: torch.device) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found = size.family.encode_prompts(size.parts, ["a photograph of a dog"] * size.batch)
    return {key: value.to(device) for key, value in found.items()}


def autocast(device: torch.device) -> Any:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def measured(step: Callable[[], object], device: torch.device, steps: int) -> tuple[float, float | None]:
    """(median seconds, GiB at the peak) of the steps after two; the peak is that of a GPU."""
    step()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else None
    return statistics.median(seconds), peak


def estimated(size: Size, config: TrainConfig, title: str, *, dry: bool, **changed: Any) -> float:
    """GiB that the plan has for a step."""
    name, _variant, _side, configs = FOLDERS[title]
    for settings in configs.values():
        settings.update({key: value for key, value in changed.items() if key in settings})
    with tempfile.TemporaryDirectory() as place:
        folder = folder_of(title, Path(place))
        parts = tiny_parts(name)[1] if dry else FAMILIES[name].load(folder, dtype=torch.float32, device="meta")
    for module in (parts.denoiser, parts.vae, *parts.text_encoders.values()):
        module.to("meta")
    targets = targets_of(size.family, "attention")
    model = Model(
        weights=Weights(size.family, parts, config.precision),
        traces=Traces(size.family, parts, targets, config.precision, size.side),
        count=parameter_count(parts.denoiser, matched(parts.denoiser, targets), config.lora),
        moments=2.0,
        device=torch.device("cpu"),
    )
    return estimate(model, config, images=(1, 0)).stages["steps are taken"] / GIB


def row(name: str, seconds: float, first: float, peak: float | None, plan: float | None) -> None:
    shown = "-" if peak is None else f"{peak:.2f}"
    ratio = f"{peak / plan:.2f}" if peak is not None and plan is not None else "-"
    print(f"| {name} | {seconds:.4g} | {seconds / first:.2f} | {shown} | {'-' if plan is None else f'{plan:.2f}'} | {ratio} |", flush=True)


HEAD = "| step | seconds | against the first | peak, GiB | estimate, GiB | peak / estimate |\n|---|---|---|---|---|---|"


def swap(device: torch.device, *, dry: bool) -> None:
    """None, half of the blocks, activations away, both."""
    print(HEAD, flush=True)
    first = 0.0
    for half, away in ((False, False), (True, False), (False, True), (True, True)):
        size = on_the_device("FLUX.1 dev", device, dry=dry, steps=5, **DEPTH)
        for encoder in size.parts.text_encoders.values():
            encoder.to(device)
        count = len(blocks_of(size.family, size.parts.denoiser)) // 2 if half else 0
        ours = Ours(size, device, swapped=count, away=away)
        for encoder in size.parts.text_encoders.values():
            encoder.to("meta")
        size.parts.vae.to("meta")
        seconds, peak = measured(ours.step, device, size.steps)
        first = first or seconds
        name = " and ".join([f"swap_blocks={count}"] * half + ["offload_activations"] * away) or "none"
        row(name, seconds, first, peak, estimated(size, ours.config, "FLUX.1 dev", dry=dry, **DEPTH))
        del ours, size
        free(device)


class Script:
    """The step of diffusers' script: pixels through the VAE, captions through both text encoders, the UNet, clipping, AdamW."""

    def __init__(self, size: Size, device: torch.device) -> None:
        from diffusers import DDPMScheduler
        from peft import LoraConfig as Peft

        self.size, self.device = size, device
        parts = size.parts
        for module in (parts.denoiser, parts.vae, *parts.text_encoders.values()):
            module.to(device).requires_grad_(False)
        parts.denoiser.add_adapter(
            Peft(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"])
        )
        self.weights = [weight for weight in parts.denoiser.parameters() if weight.requires_grad]
        for weight in self.weights:
            weight.data = weight.data.float()
        parts.denoiser.enable_gradient_checkpointing()
        parts.denoiser.train()
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000)
        self.pixels = torch.rand(size.batch, 3, size.side, size.side) * 2 - 1

    def step(self) -> None:
        """One optimizer step."""
        family, parts, size = self.size.family, self.size.parts, self.size
        with torch.no_grad():
            clean = family.encode_images(parts, self.pixels.to(self.device)).mean.to(parts.dtype)
            states = family.encode_prompts(parts, ["a photograph of a dog"] * size.batch)
        noise = torch.randn_like(clean)
        times = torch.randint(0, 1000, (size.batch,), device=self.device)
        noisy = self.scheduler.add_noise(clean, noise, times)
        with autocast(self.device):
            complete = family.complete(parts, states, height=size.side, width=size.side, guidance=1.0)
            found = family.predict(parts, noisy, times.float(), complete)
        loss = torch.nn.functional.mse_loss(found.float(), noise.float())
        loss.item()  # the script logs it in each step
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def sdxl(device: torch.device, *, dry: bool) -> None:
    """The script's step, ours, ours with activations in main memory."""
    print(HEAD, flush=True)
    script = Script(on_the_device("SDXL", device, dry=dry, steps=8), device)
    first, peak = measured(script.step, device, script.size.steps)
    row("diffusers' script", first, first, peak, None)
    del script
    free(device)
    for away in (False, True):
        size = on_the_device("SDXL", device, dry=dry, steps=8)
        ours = Ours(size, device, away=away)
        for module in (size.parts.vae, *size.parts.text_encoders.values()):
            module.to("meta")
        seconds, peak = measured(ours.step, device, size.steps)
        row(f"ours{', offload_activations' if away else ''}", seconds, first, peak, estimated(size, ours.config, "SDXL", dry=dry))
        del ours, size
        free(device)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["swap", "sdxl"])
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cpu" if given.dry else "cuda")
    {"swap": swap, "sdxl": sdxl}[given.what](device, dry=given.dry)


if __name__ == "__main__":
    main()
