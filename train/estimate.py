"""What a run will take, before it starts: weights counted from shapes, activations and arithmetic traced through the empty model.

The denoiser runs once without memory (meta device): every tensor that the backward pass would keep is counted, and every product.
Memory is near the truth, time is a rough estimate: products a step over what this device does in a short matrix product.
"""

# B pictures of one pass, C channels, H W latent size

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.families.base import Conditioning, Family, Parts
from train.config import Precision, TrainConfig
from train.lora import add_loras, keep_few_activations, learning_modules

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

STEP_PASSES = 2.2  # products of forward and backward over those of the forward: the frozen base needs no weight gradients
EFFICIENCY = {"cpu": 0.35, "cuda": 0.35, "mps": 0.3}  # of a large matrix product's rate; small layers do worse
MIB = 2**20


@dataclass(frozen=True)
class Estimate:
    """Bytes by component, and the work of one step. None: the empty model could not be traced."""

    memory: Mapping[str, int]
    activations: int | None
    operations_a_step: float | None
    seconds_a_step: float | None

    @property
    def total(self) -> int:
        """What is in memory at once while training."""
        return sum(self.memory.values()) + (self.activations or 0)


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
    resolution: int,
    count: int,
) -> Estimate:
    """The estimate for a skeleton. `count` is the number of weights of the LoRA."""
    itemsize = 4 if precision is Precision.fp32 else 2
    memory = {
        "denoiser": weights_bytes(parts.denoiser, itemsize),
        "VAE (pictures; previews)": weights_bytes(parts.vae, 4),
        "LoRA weights, gradients, optimizer": count * 4 * 4,
    }
    if config.lora.text_encoder:
        memory["text encoders"] = sum(weights_bytes(encoder, itemsize) for encoder in parts.text_encoders.values())
    if parts.device.type != "meta":
        return Estimate(memory, None, None, None)
    try:
        activations, operations = _trace(family, parts, config, targets, resolution)
    except Exception:  # a family whose forward looks at values cannot run without them: then there is no estimate
        return Estimate(memory, None, None, None)
    activations = int(activations * itemsize / 4)
    operations = operations * STEP_PASSES * config.accumulate
    rate = products_a_second(device, precision) * EFFICIENCY.get(device.type, 0.3)
    return Estimate(memory, activations, operations, operations / rate)


def _trace(family: Family, parts: Parts, config: TrainConfig, targets: str | Sequence[str], resolution: int) -> tuple[int, float]:
    """(bytes in fp32 that one pass keeps for its backward, products of its forward)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def read() -> Conditioning:
        return {key: value.to("meta") for key, value in family.encode_prompts(parts, ["a"] * config.batch_size).items()}

    conditioning = read()
    modules = learning_modules(family, parts, config)
    side = resolution // parts.latent_factor
    shape = (config.batch_size, family.channels(parts), side, side)
    with torch.device("meta"):
        add_loras(family, modules, config, targets)
        noisy, timesteps = torch.zeros(shape), torch.zeros(config.batch_size)
    for module in modules.values():
        module.train()
        if config.gradient_checkpointing:
            keep_few_activations(module)
    loaded = (parts.denoiser, *parts.text_encoders.values())
    own = {parameter.untyped_storage()._cdata for module in loaded for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # an address must not be given twice
        return tensor

    alive: list[Any] = []
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = read() if len(modules) > 1 else conditioning
        with torch.device("meta"):
            complete = family.complete(parts, states, height=resolution, width=resolution, guidance=1.0)
        family.predict(parts, noisy, timesteps, complete)
    return sum(kept.values()), float(counter.get_total_flops())


def products_a_second(device: torch.device, precision: Precision) -> float:
    """What the device does in a matrix product of a tenth of a second or so."""
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
