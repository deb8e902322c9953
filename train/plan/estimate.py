"""Memory and time of a run, before it starts: weights counted from shapes, memory and arithmetic traced through the empty model.

Each stage of a run is traced on its own: what the VAE needs for an image, the text encoders for a prompt, a step of training, a preview.
A GPU holds one stage at a time (the VAE and the text encoders are moved off when they are done), so the run needs what its largest
stage needs. A CPU's memory also holds this process and its libraries, and a fresh base for the proof after the trained one is freed.
Time is an estimate for an idle machine: what is counted in the traces, by this device's speed in a small computation (speed.py).
"""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.family import Family
from registry.formats.hashing import value_sha256
from registry.parts import Conditioning, Parts
from registry.swapping.blocks import Swap
from train.config import Precision, TrainConfig, to_plain
from train.loop.pace import times_due
from train.loop.probes import PROBED, PROBED_POINTS
from train.loop.validation import points_of
from train.lora import add_loras, enable_gradient_checkpointing, learning_modules
from train.plan.base import precision_dtype
from train.plan.peak import Trace, backward, trace
from train.plan.quantised import quantisation_of, quantise_skeleton, stored_bytes
from train.plan.speed import Speed, measure_speed
from train.plan.swap import planned_swap
from train.tokens.new_token import NewToken
from train.tokens.vectors import add_vectors

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

LOG = logging.getLogger(__name__)

MIB = 2**20
LATER_LIBRARIES = 60 * MIB  # what accelerate, matplotlib and the allocator take in a run's process after its plan; measured
LIBRARIES_SECONDS = 9.0  # CPU seconds of importing them, of the curves and of the report; measured
LOADED_A_SECOND = 1e9  # bytes of a base read from the disk's cache and copied; measured
SLOTS, HELD = "slots of swapped blocks", "swapped blocks in main memory"
WIDTH = 8  # images of one held-out pass at the usual batch size of 4


@dataclass(frozen=True)
class Estimate:
    """Bytes by component, what a step keeps beside them, and what each stage needs. None: the empty model could not be traced."""

    memory: Mapping[str, int]
    activations: int | None
    seconds: Mapping[str, float] | None  # steps, held-out loss, previews, start and proof
    stages: Mapping[str, int] = field(default_factory=dict)  # stage -> bytes on the device while it lasts
    on_device: bool = False  # a GPU holds one stage at a time; a CPU's memory holds everything
    process: int = 0  # bytes of this process and its libraries, where the device is the CPU
    swap: Swap | None = None  # the denoiser's blocks, and those of them that are swapped

    @property
    def total(self) -> int:
        """What is in memory at once: on a GPU the largest stage, on a CPU all that is loaded."""
        everything = self.process + sum(self.memory.values()) + (self.activations or 0)
        return max(self.stages.values()) if self.on_device and self.stages else everything


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
    tokens: Sequence[NewToken] = (),
    moments: float,
    images: tuple[int, int],
    beside: tuple[int, int, int] = (0, 0, 0),
    share: float = 1.0,
) -> Estimate:
    """The estimate for a skeleton.

    `count` is the number of weights of the LoRA, `moments` what the optimizer keeps for each, `images` how many are trained and held out,
    `beside` how many more images go through the denoiser at each held-out measurement, at those with a checkpoint, and once,
    `share` the work of the average pass against a full one at `side`.
    """
    itemsize = 4 if precision is Precision.fp32 else 2
    learned = "LoRA weights, gradients, optimizer"
    quantised = quantisation_of(config, family)
    swap = planned_swap(config, family, parts, itemsize)
    held = {SLOTS: swap.device_bytes, HELD: swap.host_bytes} if swap.swapped else {}
    memory = {
        family.denoiser: stored_bytes(parts.denoiser, itemsize, quantised.of(family.denoiser)) - swap.host_bytes,
        **held,
        "vae": stored_bytes(parts.vae, 4, None),
        **{name: stored_bytes(encoder, itemsize, quantised.of(name)) for name, encoder in parts.text_encoders.items()},
        learned: round(count * 4 * (2 + moments)),  # fp32: weight, gradient, optimizer state
    }
    process = 0 if device.type != "cpu" else resident_bytes() + LATER_LIBRARIES
    if parts.device.type != "meta":
        return Estimate(memory, None, None, process=process, swap=swap)
    traced = _kept_traces(family, parts, config, targets, precision, side, tokens)
    if traced is None:
        return Estimate(memory, None, None, process=process, swap=swap)
    denoiser = memory[family.denoiser] + swap.device_bytes
    encoders = sum(memory[name] for name in parts.text_encoders)
    activations = max(0, traced.step.peak - count * 4)  # the gradients are counted with the LoRA
    stages = {
        "images are encoded": memory["vae"] + traced.encode.peak,
        "prompts are encoded": encoders + traced.prompt.peak,
        "steps are taken": denoiser + memory[learned] + activations + (encoders if config.lora.text_encoder or tokens else 0),
    }
    if config.preview.prompts != []:  # the VAE decodes beside the denoiser and what the optimizer keeps
        stages["previews are drawn"] = denoiser + memory[learned] + memory["vae"] + traced.decode.peak
    loaded = swap.host_bytes + sum(memory[name] for name in (family.denoiser, "vae", *parts.text_encoders))
    guided = family.guided(parts, float(config.preview.guidance or 0.0), negative=False)
    seconds = _seconds(config, traced, measure_speed(device, precision), images, beside=beside, loaded=loaded, guided=guided, share=share)
    return Estimate(memory, activations, seconds, stages, device.type != "cpu", process, swap)


def resident_bytes() -> int:
    """Memory of this process now, of its files too; its peak where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class _Traces:
    """What the stages of a run are made of."""

    encode: Trace  # one image into the VAE
    prompt: Trace  # one prompt through the encoders
    decode: Trace  # one image out of the VAE
    forward: Trace  # WIDTH images through the denoiser
    step: Trace  # forward and backward of one pass


def _seconds(
    config: TrainConfig,
    traced: _Traces,
    speed: Speed,
    images: tuple[int, int],
    *,
    beside: tuple[int, int, int],
    loaded: int,
    guided: bool,
    share: float,
) -> dict[str, float]:
    """Seconds by what they go to. Latents and prompts that are cached are counted as if they were not."""
    steps, trained, heldout = config.steps, *images
    saved, measured, drawn = (every or steps for every in (config.checkpoint.every, config.heldout.every, config.preview.every))
    prompts = len(config.preview.prompts or [])
    forward = speed.seconds(traced.forward)  # of WIDTH images
    probes = (min(heldout, PROBED) + min(trained, PROBED)) * PROBED_POINTS  # with other captions, and of training images
    passes = math.ceil((heldout * points_of(heldout) + probes + beside[0]) / WIDTH) if heldout else 0
    seldom = math.ceil(beside[1] / WIDTH) * (times_due(0, steps, [saved]) + 1) + math.ceil(beside[2] / WIDTH) if heldout else 0
    drawing = prompts * ((config.preview.steps or 0) * forward / WIDTH * (2 if guided else 1) + speed.seconds(traced.decode))
    encoding = (trained + heldout) * (speed.seconds(traced.encode) + speed.seconds(traced.prompt))
    return {
        "steps": steps * config.accumulate * speed.seconds(traced.step) * share,
        "held-out loss": forward * (passes * (times_due(0, steps, [measured, saved]) + 1) + seldom),
        "previews": drawing * (times_due(0, steps, [drawn]) + 1),
        "start and proof": encoding + 2 * loaded / LOADED_A_SECOND + LIBRARIES_SECONDS,
    }


TRACED: dict[str, _Traces] = {}  # of this process, by all that a trace depends on: the runs of a sweep plan the same model again
MOST_TRACED = 64


def _kept_traces(
    family: Family,
    parts: Parts,
    config: TrainConfig,
    targets: str | Sequence[str],
    precision: Precision,
    resolution: int,
    tokens: Sequence[NewToken],
) -> _Traces | None:
    """The traces, made once for a model and the settings that they depend on."""
    key = value_sha256(
        {
            "family": [family.name, family.encoding_version],
            "modules": {name: _structure(module) for name, module in _modules(parts).items()},
            "prompt_chunks": parts.prompt_chunks,
            "settings": [to_plain(config.lora), config.batch_size, config.gradient_checkpointing, config.clip_skip],
            "quantised": [config.base_dtype, config.text_encoder_dtype],
            "targets": targets if isinstance(targets, str) else list(targets),
            "precision": precision.name,
            "resolution": resolution,
            "vectors": [token.vectors for token in tokens],
        }
    )
    if key not in TRACED and (found := _traces(family, parts, config, targets, precision, resolution, tokens)) is not None:
        TRACED[key] = found
        for old in list(TRACED)[:-MOST_TRACED]:
            del TRACED[old]
    return TRACED.get(key)


def _modules(parts: Parts) -> dict[str, Module]:
    return {"denoiser": parts.denoiser, "vae": parts.vae, **parts.text_encoders}


def _structure(module: Module) -> list[Any]:
    """A module's class, config, and its weights' names, shapes and dtypes."""
    weights = [(name, list(weight.shape), str(weight.dtype)) for name, weight in module.state_dict().items()]
    return [type(module).__name__, str(getattr(module, "config", "")), weights]


def _traces(
    family: Family,
    parts: Parts,
    config: TrainConfig,
    targets: str | Sequence[str],
    precision: Precision,
    resolution: int,
    tokens: Sequence[NewToken],
) -> _Traces | None:
    """The traces; None where a forward needs numbers."""
    import torch

    dtype = precision_dtype(precision)
    low = None if precision is Precision.fp32 else dtype
    for module in (parts.denoiser, *parts.text_encoders.values()):
        for weight in (*module.parameters(), *module.buffers()):
            if weight.is_floating_point():
                weight.data = weight.data.to(dtype)  # diffusers' own `to` warns of every cast
    quantise_skeleton(parts, quantisation_of(config, family), family.denoiser)

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
        encode, decode = trace(image, [parts.vae]), trace(preview, [parts.vae])
        prompts = trace(prompt, list(parts.text_encoders.values()))
        forward = _forward(family, parts, resolution, low)
        return _Traces(encode, prompts, decode, forward, _step(family, parts, config, targets, resolution, low, tokens))
    except Exception as error:
        LOG.warning("memory and time cannot be estimated: the empty model could not be traced (%s: %s)", type(error).__name__, error)
        return None


def _forward(family: Family, parts: Parts, resolution: int, low: torch.dtype | None) -> Trace:
    """WIDTH images through the denoiser, without gradients."""
    import torch

    side = resolution // parts.latent_factor

    def work() -> None:
        states = {key: value.to("meta") for key, value in family.encode_prompts(parts, ["a"] * WIDTH).items()}
        with torch.device("meta"):
            noisy = torch.zeros((WIDTH, family.channels(parts), side, side), dtype=parts.dtype)
            complete = family.complete(parts, states, height=resolution, width=resolution, guidance=1.0)
            timesteps = torch.zeros(WIDTH)
        family.predict(parts, noisy, timesteps, complete)

    with torch.no_grad():
        return trace(work, [parts.denoiser, *parts.text_encoders.values()], low=low)


def _step(
    family: Family,
    parts: Parts,
    config: TrainConfig,
    targets: str | Sequence[str],
    resolution: int,
    low: torch.dtype | None,
    tokens: Sequence[NewToken],
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
        vectors = add_vectors(tokens, parts, config.tokens, seed=config.seed, steps=config.steps)
        add_loras(family, modules, config, targets)
        noisy, timesteps = torch.zeros(shape, dtype=parts.dtype), torch.zeros(config.batch_size)
    if vectors:
        vectors.begin("meta")
    for module in modules.values():
        module.train()
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(module)

    def work() -> None:
        conditioning = read() if len(modules) > 1 or vectors else states
        with torch.device("meta"):
            complete = family.complete(parts, conditioning, height=resolution, width=resolution, guidance=1.0)
        loss = family.predict(parts, noisy, timesteps, complete).float().square().mean()
        backward(loss)

    return trace(work, [parts.denoiser, *parts.text_encoders.values()], low=low)


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
