"""Traces of the stages of a run: what the VAE needs for an image, the text encoders for a prompt, the denoiser for a step.

Each is made once a process for what it depends on, so that a plan which compares settings, and the runs of a sweep, make few of them; a
run keeps them in the home (kept_traces.py).
"""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.architectures.vae.tiles import decode_tiled
from registry.budget.code import processor
from registry.budget.peak import Trace, backward, trace
from registry.family import Family
from registry.formats.hashing import value_sha256
from registry.parts import Conditioning, Parts
from registry.quantised.empty import copied
from registry.quantised.skeleton import stored_layers
from registry.swapping.activations import ActivationOffload
from train.config import Precision, TrainConfig, to_plain
from train.lora import add_loras, enable_gradient_checkpointing, learning_modules, may_stack
from train.plan.base import precision_dtype
from train.plan.kept_traces import is_known, keep_traces, read_trace
from train.plan.quantised import quantisation_of
from train.tokens.new_token import NewToken
from train.tokens.vectors import add_vectors

if TYPE_CHECKING:
    from torch.nn import Module

Tracing = Callable[[Callable[[], object], Iterable["Module"]], Trace]

TRACED: dict[str, Trace] = {}  # of this process, by all that a trace depends on: the runs of a sweep plan the same model again
MOST_TRACED = 320
UNKEPT: dict[str, Trace] = {}  # those of them that are not in the home yet


def keep_made() -> None:
    """Keep the traces of this process in the home, for later runs. A plan alone writes nothing."""
    keep_traces(UNKEPT)
    UNKEPT.clear()


@dataclass(frozen=True)
class Traces:
    """The traces of an empty model at one size; the model itself stays as it is."""

    family: Family
    parts: Parts  # without weights, in plain layers
    targets: str | Sequence[str]
    precision: Precision
    side: int
    tokens: Sequence[NewToken] = ()
    on_cpu: bool = False  # what a CPU takes beside the tensors is counted too
    forms: bool = True  # layers may have their weights formed at once: one process trains, and no training adapter is fused
    _model: str = field(init=False)

    def __post_init__(self) -> None:
        modules = {"denoiser": self.parts.denoiser, "vae": self.parts.vae, **self.parts.text_encoders}
        known = {
            "family": [self.family.name, self.family.encoding_version],
            "modules": {name: _structure(module) for name, module in modules.items()},
            "prompt_chunks": self.parts.prompt_chunks,
            "precision": self.precision.name,
            "resolution": self.side,
            "on_cpu": processor() if self.on_cpu else None,
        }
        object.__setattr__(self, "_model", value_sha256(known))

    def encode(self) -> Trace:
        """One image into the VAE."""
        return self._kept("encode", [], lambda: _encode(self.family, self.parts, self.side, self._trace))

    def decode(self, config: TrainConfig) -> Trace:
        """One image out of the VAE, in the previews' tiles; of a run without previews nothing."""
        if config.preview.prompts == []:
            return Trace(0, 0.0)
        tile = config.preview.vae_tiling
        return self._kept("decode", [tile], lambda: _decode(self.family, self.parts, self.side, tile, self._trace))

    def prompt(self, config: TrainConfig) -> Trace:
        """One prompt through the encoders."""
        return self._kept("prompt", [config.text_encoder_dtype], lambda: _prompt(self.family, self._copy(config), self._trace))

    def forward(self, config: TrainConfig) -> Trace:
        """The images of a pass without gradients through the denoiser."""
        rows = config.images_a_pass
        settings = [config.base_dtype, config.text_encoder_dtype, config.compute, rows]
        return self._kept("forward", settings, lambda: _forward(self.family, self._copy(config), self.side, rows, self._trace_low))

    def step(self, config: TrainConfig) -> Trace:
        """Forward and backward of one pass."""

        def made() -> Trace:
            parts, stacked = self._copy(config), self._stacked(config)
            return _step(self.family, parts, config, self.targets, self.side, self._trace_low, self.tokens, stacked=stacked)

        return self._kept("step", self._step_settings(config), made)

    def _step_settings(self, config: TrainConfig) -> list[Any]:
        return [
            *(to_plain(config.lora), config.batch_size, config.gradient_checkpointing, config.clip_skip),
            *(config.base_dtype, config.text_encoder_dtype if config.lora.text_encoder or self.tokens else None),
            *(config.compute, config.offload_activations, config.compile is None, self._stacked(config)),
            self.targets if isinstance(self.targets, str) else list(self.targets),
            [token.vectors for token in self.tokens],
        ]

    def _stacked(self, config: TrainConfig) -> bool:
        """Whether layers of one shape have their weights formed at once."""
        return self.forms and not self.tokens and may_stack(config, self.precision)

    @property
    def _trace(self) -> Tracing:
        """Traces a computation on modules."""
        return partial(trace, on_cpu=self.on_cpu)

    @property
    def _trace_low(self) -> Tracing:
        """The same with autocast's dtype."""
        low = None if self.precision is Precision.fp32 else precision_dtype(self.precision)
        return partial(trace, low=low, on_cpu=self.on_cpu)

    def _kept(self, kind: str, settings: list[Any], make: Callable[[], Trace]) -> Trace:
        key = value_sha256([kind, self._model, settings])
        if key not in TRACED:
            known = is_known(self.family)
            kept = read_trace(key) if known else None
            TRACED[key] = kept or make()
            for old in list(TRACED)[:-MOST_TRACED]:
                del TRACED[old]
            if known and kept is None:
                UNKEPT[key] = TRACED[key]
        return TRACED[key]

    def _copy(self, config: TrainConfig) -> Parts:
        """The model in the dtypes of a run, to be changed by a trace."""
        from torch.nn import Identity

        alone = replace(self.parts, vae=Identity())  # the VAE is in fp32, and nothing changes it
        parts = copied(alone, precision_dtype(self.precision), quantisation_of(config, self.family), self.family.denoiser)
        parts = replace(parts, vae=self.parts.vae)
        if config.compute is not None:
            from registry.quantised.products import set_compute

            set_compute(parts.denoiser, config.compute)
        return parts


def _structure(module: Module) -> list[Any]:
    """A module's class, config, its weights' names, shapes and dtypes, and what its file keeps of them."""
    weights = [(name, list(weight.shape), str(weight.dtype)) for name, weight in module.state_dict().items()]
    stored = {name: weight.coding.title for name, weight in stored_layers(module).items()}
    return [type(module).__name__, str(getattr(module, "config", "")), weights, stored]


def _encode(family: Family, parts: Parts, resolution: int, trace: Tracing) -> Trace:
    import torch

    def work() -> None:
        with torch.no_grad():
            family.encode_images(parts, torch.empty(1, 3, resolution, resolution, device="meta"))

    return trace(work, [parts.vae])


def _decode(family: Family, parts: Parts, resolution: int, tile: int | None, trace: Tracing) -> Trace:
    import torch

    def work() -> None:
        side = resolution // parts.latent_factor
        with torch.no_grad():
            decode_tiled(family.decode, parts, torch.empty(1, family.channels(parts), side, side, device="meta"), tile)

    return trace(work, [parts.vae])


def _prompt(family: Family, parts: Parts, trace: Tracing) -> Trace:
    import torch

    def work() -> None:
        with torch.no_grad():
            family.encode_prompts(parts, ["a"])

    return trace(work, list(parts.text_encoders.values()))


def _forward(family: Family, parts: Parts, resolution: int, rows: int, trace: Tracing) -> Trace:
    """So many images through the denoiser, without gradients."""
    import torch

    side = resolution // parts.latent_factor

    def work() -> None:
        states = {key: value.to("meta") for key, value in family.encode_prompts(parts, ["a"] * rows).items()}
        with torch.device("meta"):
            noisy = torch.zeros((rows, family.channels(parts), side, side), dtype=parts.dtype)
            complete = family.complete(parts, states, height=resolution, width=resolution, guidance=1.0)
            timesteps = torch.zeros(rows)
        family.predict(parts, noisy, timesteps, complete)

    with torch.no_grad():
        return trace(work, [parts.denoiser, *parts.text_encoders.values()])


def _step(
    family: Family,
    parts: Parts,
    config: TrainConfig,
    targets: str | Sequence[str],
    resolution: int,
    trace: Tracing,
    tokens: Sequence[NewToken],
    *,
    stacked: bool,
) -> Trace:
    """Forward and backward of one pass."""
    import torch

    from train.adapters.flat import FlatWeights
    from train.adapters.stacks import forming, stack_layers

    def read() -> Conditioning:
        return {key: value.to("meta") for key, value in family.encode_prompts(parts, ["a"] * config.batch_size).items()}

    with torch.no_grad():
        states = read()
    modules = learning_modules(family, parts, config)
    side = resolution // parts.latent_factor
    shape = (config.batch_size, family.channels(parts), side, side)
    with torch.device("meta"):
        vectors = add_vectors(tokens, parts, config.tokens, seed=config.seed, steps=config.steps)
        weights = add_loras(family, modules, config, targets)
        noisy, timesteps = torch.zeros(shape, dtype=parts.dtype), torch.zeros(config.batch_size)
    if vectors:
        vectors.begin("meta")
    for module in modules.values():
        module.train()
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(module)

    stacks = stack_layers(modules) if stacked and weights else []
    if stacks:
        FlatWeights([[weight for _, weight in every] for every in weights.values()], stacks)

    def work() -> None:
        conditioning = read() if len(modules) > 1 or vectors else states
        with torch.device("meta"):
            complete = family.complete(parts, conditioning, height=resolution, width=resolution, guidance=1.0)
        with forming(stacks):
            with offload.keeping() if config.offload_activations else nullcontext():
                prediction = family.predict(parts, noisy, timesteps, complete)
            backward(prediction.float().square().mean())

    weighty = [parts.denoiser, *parts.text_encoders.values()]
    offload = ActivationOffload(weighty)
    return replace(trace(work, weighty), away=offload.ledger.host_peak)
