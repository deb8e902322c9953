"""Memory and time of a run, before it starts: weights counted from shapes, memory and arithmetic traced through the empty model.

Each stage of a run is traced on its own: what the VAE needs for an image, the text encoders for a prompt, a step of training, a preview.
A GPU holds one stage at a time (the VAE and the text encoders are moved off when they are done), so the run needs what its largest
stage needs. Memory is close, time is a rough estimate: operations per step over this device's rate in a short matrix product.
"""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.family import Family
from registry.parts import Conditioning, Parts
from train.config import Precision, TrainConfig
from train.lora import add_loras, enable_gradient_checkpointing, learning_modules
from train.plan.base import precision_dtype
from train.plan.peak import Trace, backward, trace

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

LOG = logging.getLogger(__name__)

EFFICIENCY = {"cpu": 0.35, "cuda": 0.35, "mps": 0.3}  # of a large matrix product's rate; small layers do worse
MIB = 2**20


@dataclass(frozen=True)
class Estimate:
    """Bytes by component, what a step keeps beside them, and what each stage needs. None: the empty model could not be traced."""

    memory: Mapping[str, int]
    activations: int | None
    operations_a_step: float | None
    seconds_a_step: float | None
    stages: Mapping[str, int] = field(default_factory=dict)  # stage -> bytes on the device while it lasts
    on_device: bool = False  # a GPU holds one stage at a time; a CPU's memory holds everything

    @property
    def total(self) -> int:
        """What is in memory at once: on a GPU the largest stage, on a CPU all that is loaded."""
        everything = sum(self.memory.values()) + (self.activations or 0)
        return max(self.stages.values()) if self.on_device and self.stages else everything


def weights_bytes(module: Module, itemsize: int) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) * itemsize


def estimate(
    family: Family,
    parts: Parts,
    config: TrainConfig,
    *,
    targets: str | Sequence[str],
    precision: Precision,
    device: torch.device,
    side: int,
    count: int,
    moments: int,
) -> Estimate:
    """The estimate for a skeleton. `count` is the number of weights of the LoRA, `moments` what the optimizer keeps for each."""
    itemsize = 4 if precision is Precision.fp32 else 2
    learned = "LoRA weights, gradients, optimizer"
    memory = {
        family.denoiser: weights_bytes(parts.denoiser, itemsize),
        "vae": weights_bytes(parts.vae, 4),
        **{name: weights_bytes(encoder, itemsize) for name, encoder in parts.text_encoders.items()},
        learned: count * 4 * (2 + moments),  # fp32: weight, gradient, optimizer state
    }
    if parts.device.type != "meta":
        return Estimate(memory, None, None, None)
    traced = _traces(family, parts, config, targets, precision, side)
    if traced is None:
        return Estimate(memory, None, None, None)
    images, prompts, preview, step = traced
    encoders = sum(memory[name] for name in parts.text_encoders)
    activations = max(0, step.peak - count * 4)  # the gradients are counted with the LoRA
    stages = {
        "images are encoded": memory["vae"] + images.peak,
        "prompts are encoded": encoders + prompts.peak,
        "steps are taken": memory[family.denoiser] + memory[learned] + activations + (encoders if config.lora.text_encoder else 0),
    }
    if config.preview.prompts != []:  # the VAE decodes beside the denoiser and what the optimizer keeps
        stages["previews are drawn"] = memory[family.denoiser] + memory[learned] + memory["vae"] + preview.peak
    operations = step.operations * config.accumulate
    rate = products_a_second(device, precision) * EFFICIENCY.get(device.type, 0.3)
    return Estimate(memory, activations, operations, operations / rate, stages, device.type != "cpu")


def _traces(
    family: Family, parts: Parts, config: TrainConfig, targets: str | Sequence[str], precision: Precision, resolution: int
) -> tuple[Trace, Trace, Trace, Trace] | None:
    """One image into the VAE, one prompt through the encoders, one image out, one step; None where a forward needs numbers."""
    import torch

    dtype = precision_dtype(precision)
    low = None if precision is Precision.fp32 else dtype
    for module in (parts.denoiser, *parts.text_encoders.values()):
        for weight in (*module.parameters(), *module.buffers()):
            if weight.is_floating_point():
                weight.data = weight.data.to(dtype)  # diffusers' own `to` warns of every cast

    def image() -> None:
        with torch.no_grad():
            family.encode_images(parts, torch.empty(1, 3, resolution, resolution, device="meta"))

    def prompt() -> None:
        with torch.no_grad():
            family.encode_prompts(parts, ["a"])

    def preview() -> None:
        side = resolution // parts.latent_factor
        with torch.no_grad():
            family.decode(parts, torch.empty(1, family.channels(parts), side, side, device="meta"))

    try:
        images, decoded = trace(image, [parts.vae]), trace(preview, [parts.vae])
        prompts = trace(prompt, list(parts.text_encoders.values()))
        return images, prompts, decoded, _step(family, parts, config, targets, resolution, low)
    except Exception as error:
        LOG.warning("memory and time cannot be estimated: the empty model could not be traced (%s: %s)", type(error).__name__, error)
        return None


def _step(
    family: Family, parts: Parts, config: TrainConfig, targets: str | Sequence[str], resolution: int, low: torch.dtype | None
) -> Trace:
    """Forward and backward of one pass."""
    import torch

    def read() -> Conditioning:
        return {key: value.to("meta") for key, value in family.encode_prompts(parts, ["a"] * config.batch_size).items()}

    with torch.no_grad():
        states = read()
    modules = learning_modules(family, parts, config)
    side = resolution // parts.latent_factor
    shape = (config.batch_size, family.channels(parts), side, side)
    with torch.device("meta"):
        add_loras(family, modules, config, targets)
        noisy, timesteps = torch.zeros(shape, dtype=parts.dtype), torch.zeros(config.batch_size)
    for module in modules.values():
        module.train()
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(module)

    def work() -> None:
        conditioning = read() if len(modules) > 1 else states
        with torch.device("meta"):
            complete = family.complete(parts, conditioning, height=resolution, width=resolution, guidance=1.0)
        loss = family.predict(parts, noisy, timesteps, complete).float().square().mean()
        backward(loss)

    return trace(work, [parts.denoiser, *parts.text_encoders.values()], low=low)


def products_a_second(device: torch.device, precision: Precision) -> float:
    """Floating point operations per second of the device in a matrix product."""
    import torch

    dtype = torch.float32 if precision is Precision.fp32 else torch.bfloat16
    size = 4096 if device.type == "cuda" else 512
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        b = a @ a
        float(b[0, 0])  # waits for it
        best = min(best, time.perf_counter() - begin)
    return 2.0 * size**3 / best


def human_bytes(count: float) -> str:
    """1.5 GiB, 12 MiB, 340 KiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            value = count / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{int(count)} bytes"


def human_seconds(seconds: float) -> str:
    """45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
