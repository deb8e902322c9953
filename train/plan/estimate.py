"""Memory and time of a run, before it starts: weights counted from shapes, memory and arithmetic traced through the empty model.

Each stage of a run is traced on its own: what the VAE needs for an image, the text encoders for a prompt, a step of training, a preview.
A GPU holds one stage at a time (the VAE and the text encoders are moved off when they are done), so the run needs what its largest
stage needs. A CPU's memory also holds this process and its libraries, and a fresh base for the proof after the trained one is freed.
Time is an estimate for an idle machine: what is counted in the traces, by this device's speed in a small computation (speed.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from registry.budget.peak import Trace
from registry.family import Family
from registry.parts import Parts
from registry.quantised.empty import largest_quantised, stored_bytes
from registry.swapping.blocks import BlockSize, Swap, swap_of
from train.config import Precision, TrainConfig
from train.loop.pace import times_due
from train.loop.probes import PROBED, PROBED_POINTS
from train.loop.validation import points_of
from train.plan.compute import products_in_8_bits
from train.plan.quantised import quantisation_of
from train.plan.speed import Speed, measure_speed
from train.plan.swap import swappable
from train.plan.traces import Traces

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)

MIB = 2**20
LIBRARIES_SECONDS = 5.0  # CPU seconds of importing them, of the curves and of the report; measured
LOADED_A_SECOND = 1e9  # bytes of a base read from the disk's cache and copied; measured
SLOTS, HELD, AWAY = "slots of swapped blocks", "swapped blocks in main memory", "activations in main memory"
MADE, CODE = "a quantised weight in full", "code of products and convolutions"


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
    passing: int = 0  # the most that a stage without gradients makes in passing

    @property
    def total(self) -> int:
        """What is in memory at once: on a GPU the largest stage, on a CPU all that is loaded."""
        everything = self.process + sum(self.memory.values()) + max(self.activations or 0, self.passing)
        return max(self.stages.values()) if self.on_device and self.stages else everything


class Weights:
    """Bytes of an empty model's weights, by what they are kept in; each is counted once."""

    def __init__(self, family: Family, parts: Parts, precision: Precision) -> None:
        self.family, self.parts = family, parts
        self._itemsize = 4 if precision is Precision.fp32 else 2
        self.vae = stored_bytes(parts.vae, 4, None)
        self._denoisers: dict[str | None, tuple[int, Mapping[str, BlockSize]]] = {}
        self._encoders: dict[str | None, dict[str, int]] = {}
        self._made: dict[tuple[str | None, str | None], int] = {}

    def denoiser(self, config: TrainConfig) -> int:
        """All of the denoiser."""
        return self._denoiser(config)[0]

    def swap(self, config: TrainConfig, count: int | None = None) -> Swap:
        """The denoiser's blocks with those that are swapped: as many as the settings say, or `count`."""
        blocks = config.swap_blocks if count is None else count
        return swap_of(self._denoiser(config)[1], blocks, title=self.family.title)

    def encoders(self, config: TrainConfig) -> dict[str, int]:
        """Each text encoder."""
        found = self._encoders.get(config.text_encoder_dtype)
        if found is None:
            quantised = quantisation_of(config, self.family)
            each = self.parts.text_encoders.items()
            found = {name: stored_bytes(encoder, self._itemsize, quantised.of(name)) for name, encoder in each}
            self._encoders[config.text_encoder_dtype] = found
        return found

    def made(self, config: TrainConfig) -> int:
        """Bytes of the largest quantised weight in full, which a CPU keeps the room of: one after the other is made there."""
        found = self._made.get((config.base_dtype, config.text_encoder_dtype))
        if found is None:
            quantised = quantisation_of(config, self.family)
            modules = {self.family.denoiser: self.parts.denoiser, **self.parts.text_encoders}
            found = self._itemsize * max(largest_quantised(module, quantised.of(name)) for name, module in modules.items())
            self._made[config.base_dtype, config.text_encoder_dtype] = found
        return found

    def _denoiser(self, config: TrainConfig) -> tuple[int, Mapping[str, BlockSize]]:
        found = self._denoisers.get(config.base_dtype)
        if found is None:
            choose = quantisation_of(config, self.family).of(self.family.denoiser)
            blocks = swappable(config, self.family, self.parts, self._itemsize)
            found = stored_bytes(self.parts.denoiser, self._itemsize, choose), blocks
            self._denoisers[config.base_dtype] = found
        return found


@dataclass(frozen=True)
class Peaks:
    """Bytes beside the weights at the peak of each stage."""

    encode: int
    prompt: int
    decode: int
    forward: int  # of a pass without gradients: held-out losses, previews
    step: int
    away: int = 0  # of the step's activations, in main memory
    code: int = 0  # of a CPU, of all stages: it stays


@dataclass(frozen=True)
class Model:
    """What an estimate is of: an empty model at one size, and what learns on it.

    `count` is the number of weights that learn, `moments` what the optimizer keeps for each.
    """

    weights: Weights
    traces: Traces
    count: int
    moments: float
    device: torch.device
    process: int = 0  # bytes of this process and its libraries, where the device is the CPU

    @property
    def on_device(self) -> bool:
        """Whether the device has memory of its own, and holds one stage at a time."""
        return self.device.type != "cpu"

    def peaks(self, config: TrainConfig) -> Peaks:
        """The peaks by tracing. Raises whatever a forward raises that needs numbers."""
        traces = self.traces
        step, encode, prompt = traces.step(config), traces.encode(), traces.prompt(config)
        decode, forward = traces.decode(config), traces.forward(config)
        again = 0 if config.preview.prompts == [] else forward.code  # previews are denoised in passes of their own shapes
        return Peaks(
            encode=encode.peak,
            prompt=prompt.peak,
            decode=decode.peak,
            forward=forward.peak,
            step=step.peak,
            away=step.away,
            code=sum(one.code for one in (step, encode, prompt, decode, forward)) + again,
        )

    def in_memory(self, config: TrainConfig, swap: Swap, peaks: Peaks | None) -> Estimate:
        """What is in memory with these blocks swapped; without peaks, the weights alone."""
        family, learned = self.weights.family, "LoRA weights, gradients, optimizer"
        whole, encoders = self.weights.denoiser(config), self.weights.encoders(config)
        memory = {
            family.denoiser: whole - swap.host_bytes,
            **({SLOTS: swap.device_bytes, HELD: swap.host_bytes} if swap.swapped else {}),
            "vae": self.weights.vae,
            **encoders,
            learned: round(self.count * 4 * (2 + self.moments)),  # fp32: weight, gradient, optimizer state
        }
        made = 0 if self.on_device else self.weights.made(config)
        memory |= {MADE: made} if made else {}
        if peaks is None:
            return Estimate(memory, None, None, process=self.process, swap=swap)
        memory |= {AWAY: peaks.away} if config.offload_activations else {}
        memory |= {CODE: peaks.code} if peaks.code else {}
        denoiser = memory[family.denoiser] + swap.device_bytes
        activations = max(0, peaks.step - self.count * 4)  # the gradients are counted with the LoRA
        learn_texts = config.lora.text_encoder or self.traces.tokens
        learning = denoiser + memory[learned] + (sum(encoders.values()) if learn_texts else 0)
        stages = {
            "images are encoded": self.weights.vae + peaks.encode,
            "prompts are encoded": sum(encoders.values()) + peaks.prompt,
            "steps are taken": learning + activations,
            "held-out losses are measured": learning + peaks.forward,  # previews are denoised in passes of no more images
        }
        if config.preview.prompts != []:  # the VAE decodes beside the denoiser and what the optimizer keeps
            stages["previews are drawn"] = denoiser + memory[learned] + self.weights.vae + peaks.decode
        passing = max(peaks.encode, peaks.prompt, peaks.forward, peaks.decode)
        return Estimate(memory, activations, None, stages, self.on_device, self.process, swap, passing)


def estimate(
    model: Model,
    config: TrainConfig,
    *,
    images: tuple[int, int],
    beside: tuple[int, int, int] = (0, 0, 0),
    share: float = 1.0,
) -> Estimate:
    """The estimate for an empty model.

    `images` are how many are trained and held out, `beside` how many more go through the denoiser at each held-out measurement, at those
    with a checkpoint, and once, `share` the work of the average pass against a full one.
    """
    swap = model.weights.swap(config)
    plain = model.in_memory(config, swap, None)
    parts, traces = model.weights.parts, model.traces
    if parts.device.type != "meta":
        return plain
    try:
        found = model.in_memory(config, swap, model.peaks(config))
        forward = traces.forward(config)
    except Exception as error:
        LOG.warning("memory and time cannot be estimated: the empty model could not be traced (%s: %s)", type(error).__name__, error)
        return plain
    family = model.weights.family
    loaded = swap.host_bytes + sum(found.memory[name] for name in (family.denoiser, "vae", *parts.text_encoders))
    guided = family.guided(parts, float(config.preview.guidance or 0.0), negative=False)
    traced = _Traced(traces.encode(), traces.prompt(config), traces.decode(config), forward, traces.step(config))
    speed = measure_speed(model.device, traces.precision)
    if config.compute is not None:
        speed = replace(speed, in_8_bits=products_in_8_bits(model.device, config.compute))
    seconds = _seconds(config, traced, speed, images, beside=beside, loaded=loaded, guided=guided, share=share)
    return replace(found, seconds=seconds)


def of_two_passes(traced: Estimate) -> Estimate:
    """The estimate where two passes are kept for one gradient."""
    kept = traced.activations or 0
    memory = {name: count * (2 if name == AWAY else 1) for name, count in traced.memory.items()}
    stages = {name: count + (kept if name == "steps are taken" else 0) for name, count in traced.stages.items()}
    return replace(traced, memory=memory, activations=traced.activations and 2 * kept, stages=stages)


@dataclass(frozen=True)
class _Traced:
    """What the stages of a run are made of."""

    encode: Trace  # one image into the VAE
    prompt: Trace  # one prompt through the encoders
    decode: Trace  # one image out of the VAE
    forward: Trace  # the images of a pass without gradients
    step: Trace  # forward and backward of one pass


def _seconds(
    config: TrainConfig,
    traced: _Traced,
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
    forward, width = speed.seconds(traced.forward), config.images_a_pass
    probes = (min(heldout, PROBED) + min(trained, PROBED)) * PROBED_POINTS  # with other captions, and of training images
    passes = math.ceil((heldout * points_of(heldout) + probes + beside[0]) / width) if heldout else 0
    seldom = math.ceil(beside[1] / width) * (times_due(0, steps, [saved]) + 1) + math.ceil(beside[2] / width) if heldout else 0
    drawing = prompts * ((config.preview.steps or 0) * forward / width * (2 if guided else 1) + speed.seconds(traced.decode))
    encoding = (trained + heldout) * (speed.seconds(traced.encode) + speed.seconds(traced.prompt))
    return {
        "steps": steps * config.accumulate * speed.seconds(traced.step) * share,
        "held-out loss": forward * (passes * (times_due(0, steps, [measured, saved]) + 1) + seldom),
        "previews": drawing * (times_due(0, steps, [drawn]) + 1),
        "start and proof": encoding + 2 * loaded / LOADED_A_SECOND + LIBRARIES_SECONDS,
    }


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
