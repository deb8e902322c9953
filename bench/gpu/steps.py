"""Training steps of large models with random weights on a GPU: what swap and offloading cost, SDXL beside diffusers' loop, peaks.

    python -m bench.gpu.steps swap       a transformer of FLUX.1's blocks, half as deep: none, half of the blocks swapped, activations away
    python -m bench.gpu.steps sdxl       a LoRA step on SDXL beside that of diffusers' train_text_to_image_lora_sdxl.py
    ... --dry                            the same lines on the CPU with tiny models: to see that they run, not to be read as figures
    python -m bench.gpu.steps estimates  what the plan has for the peaks of both, on any machine: half a minute for each on a CPU

Weights are drawn on the device, so nothing is read from a disk. Each row: seconds of a step (median), of which the device computed (all
kernels of one more step, by torch's profiler), and the most bytes that torch allocated.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.memory.published import FOLDERS
from bench.memory.table import folder_of
from registry.architectures.attention import without_cudnn
from registry.architectures.compiled import compile_blocks
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


def on_the_device(title: str, device: torch.device, *, dry: bool, steps: int, batch: int = 1) -> Size:
    """A published model's structure with random weights in bf16; dry: the tiny build of its family in fp32."""
    name, _variant, side, _configs = FOLDERS[title]
    if dry:
        tiny_family, parts = tiny_parts(name)
        return Size(tiny_family, parts, 64, 2, batch)
    parts = copy.deepcopy(structure(title))
    for module in (parts.denoiser, parts.vae, *parts.text_encoders.values()):
        dtype = torch.float32 if module is parts.vae else torch.bfloat16
        draw(module, device, dtype)
    return Size(FAMILIES[name], parts, side, steps, batch)


@cache
def structure(title: str) -> Parts:
    """A published model on the meta device; FLUX.1 half as deep."""
    name, _variant, _side, configs = FOLDERS[title]
    for settings in configs.values():
        settings.update({key: value for key, value in DEPTH.items() if key in settings})
    with tempfile.TemporaryDirectory() as place:
        return FAMILIES[name].load(folder_of(title, Path(place)), dtype=torch.float32, device="meta")


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

    def __init__(self, size: Size, device: torch.device, config: TrainConfig) -> None:
        self.size, self.device = size, device
        family, parts = size.family, size.parts
        self.config = config
        swapped, away = config.swap_blocks, config.offload_activations
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
        if config.compile is not None:
            compile_blocks(family, parts.denoiser)
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


def measured(name: str, step: Callable[[], object], device: torch.device, steps: int, first: float) -> float:
    """Print the row of a step, and return its seconds; `first` is those of the first row, 0 in it."""
    begun = time.perf_counter()
    step()
    step()
    waited = time.perf_counter() - begun
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
    peak = f"{torch.cuda.max_memory_allocated() / GIB:.2f}" if device.type == "cuda" else "-"
    median = statistics.median(seconds)
    print(f"| {name} | {median:.4g} | {median / (first or median):.2f} | {computed(step, device)} | {peak} | {waited:.1f} |", flush=True)
    return median


def computed(step: Callable[[], object], device: torch.device) -> str:
    """Seconds that the device's kernels take in a step, and how many there are."""
    if device.type != "cuda":
        return "-"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        step()
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return f"{sum(event.device_time for event in kernels) / 1e6:.4g} in {len(kernels)} kernels and copies"


HEAD = "| step | seconds | against the first | of which the device | peak, GiB | first two steps, s |\n|---|---|---|---|---|---|"


def config_of(device: torch.device, **given: Any) -> TrainConfig:
    """The settings of a run."""
    precision = Precision.bf16 if device.type == "cuda" else Precision.fp32
    preview = PreviewConfig(prompts=[])
    return TrainConfig(batch_size=1, lora=LoraConfig(rank=16), gradient_checkpointing=True, precision=precision, preview=preview, **given)


def swap_settings(count: int) -> list[dict[str, Any]]:
    """Settings of the rows of `swap`: none, half of so many blocks swapped, activations away, both."""
    return [{"swap_blocks": half, "offload_activations": away} for half, away in ((0, False), (count, False), (0, True), (count, True))]


SDXL: list[dict[str, Any]] = [{}, {"compile": "blocks"}, {"offload_activations": True}]


def spelled(given: dict[str, Any]) -> str:
    return ", ".join(f"{name}={str(value).lower()}" for name, value in given.items() if value) or "none"


def swap(device: torch.device, *, dry: bool) -> None:
    """None, half of the blocks, activations away, both."""
    print(HEAD, flush=True)
    first = 0.0
    for place in range(4):
        size = on_the_device("FLUX.1 dev", device, dry=dry, steps=5)
        given = swap_settings(len(blocks_of(size.family, size.parts.denoiser)) // 2)[place]
        ours = Ours(size, device, config_of(device, **given))
        size.parts.text_encoders.clear()
        size.parts.vae.to("meta")
        seconds = measured(spelled(given), ours.step, device, size.steps, first)
        first = first or seconds
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
    """The script's step, ours, ours with compiled blocks, ours with activations in main memory."""
    print(HEAD, flush=True)
    script = Script(on_the_device("SDXL", device, dry=dry, steps=5), device)
    first = measured("diffusers' script", script.step, device, script.size.steps, 0.0)
    del script
    free(device)
    for given in SDXL:
        size = on_the_device("SDXL", device, dry=dry, steps=5)
        ours = Ours(size, device, config_of(device, **given))
        size.parts.text_encoders.clear()
        size.parts.vae.to("meta")
        measured(f"ours: {spelled(given)}", ours.step, device, size.steps, first)
        del ours, size
        free(device)


def estimates() -> None:
    """What the plan has for each row's peak, but for compiled ones."""
    print("| model | settings | estimate, GiB |\n|---|---|---|")
    for title in ("SDXL", "FLUX.1 dev"):
        name, _variant, side, _configs = FOLDERS[title]
        family, parts = FAMILIES[name], structure(title)
        targets = targets_of(family, "attention")
        cuda = torch.device("cuda")
        traces = Traces(family, parts, targets, Precision.bf16, side)
        for given in swap_settings(len(blocks_of(family, parts.denoiser)) // 2) if title != "SDXL" else [SDXL[0], SDXL[2]]:
            config = config_of(cuda, **given)
            model = Model(
                weights=Weights(family, parts, config.precision),
                traces=traces,
                count=parameter_count(parts.denoiser, matched(parts.denoiser, targets), config.lora),
                moments=2.0,
                device=torch.device("cpu"),
            )
            found = estimate(model, config, images=(1, 0)).stages["steps are taken"] / GIB
            print(f"| {title} | {spelled(given)} | {found:.2f} |", flush=True)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="+", choices=["swap", "sdxl", "estimates"])
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cpu" if given.dry else "cuda")
    work: dict[str, Callable[[], None]] = {
        "swap": lambda: swap(device, dry=given.dry),
        "sdxl": lambda: sdxl(device, dry=given.dry),
        "estimates": estimates,
    }
    with without_cudnn():  # as in a run; the script's loop has no other attention then, and fails in FLUX.1's else
        for what in given.what:
            work[what]()


if __name__ == "__main__":
    main()
