"""From a plan to a run that is ready to train: base loaded, images and prompts encoded, text encoders freed, LoRA added."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.compiled import compile_blocks
from registry.budget.freed import give_back
from registry.budget.held import Held
from registry.budget.trimmed import LEAST, Trimming
from registry.files.locks import held
from registry.home import home_dir
from registry.parts import Parts
from registry.printable import counted
from registry.progress import Report, Tick
from registry.quantised.errors import WeightError, weight_error
from registry.swapping.activations import ActivationOffload
from registry.swapping.blocks import blocks_of
from registry.swapping.swap import BlockSwap
from train.adapters.attach import is_up
from train.adapters.start import start_tensors
from train.choices import build_optimizer, choose_optimizer, group_rates, objective_functions, token_rate
from train.config import TrainConfig
from train.data.captions import Remembered
from train.data.dataset import Sample
from train.loop.cache import Cache
from train.loop.drawn_texts import CachedTexts, FreshTexts, TrainingTexts
from train.loop.ema import ema_of
from train.loop.encode import Latents, Prompts, Texts, cached_bytes, drawn_latents, encode_latents, encode_texts, release
from train.loop.preserve import Preserve, class_prompts
from train.loop.preview import PromptPreviews, encode_unconditional
from train.loop.probes import Probes, other_captions
from train.loop.step import TrainState, denoiser_call
from train.loop.validation import Probe, points_of
from train.lora import add_loras, enable_gradient_checkpointing, learning_modules, lora_tensors, may_stack, scales, set_lora_tensors
from train.measures.delta_norm import DeltaNorm
from train.measures.drift import drawn_prompts, drift_probe
from train.measures.images import ImageProbe, measured_images, probed_images
from train.measures.trigger import TriggerProbe, bare_prompts
from train.objective.targets import objective_of
from train.output import folder
from train.plan.base import load, precision_dtype
from train.plan.estimate import human_bytes
from train.plan.plan import Plan
from train.preference.passes import encode_rejected, set_preference, with_pairs
from train.run_types import Log
from train.slider.passes import encode_passes, set_passes
from train.slider.run import SliderRun
from train.tokens.new_token import with_new_tokens
from train.tokens.vectors import Vectors, add_vectors
from train.training_adapter import fuse

if TYPE_CHECKING:
    import torch

    from train.adapters.flat import FlatWeights
    from train.adapters.stacks import Stack


@dataclass(kw_only=True)
class Work:
    """A run that is ready to train."""

    plan: Plan
    folder: Path
    state: TrainState
    probe: Probes | None
    previews: PromptPreviews | None
    slider: SliderRun | None = None
    report: Report
    out: Log
    inputs: Mapping[str, Any] = field(default_factory=dict)
    quantised: Mapping[str, WeightError] = field(default_factory=dict)  # component -> what quantising changed of its weights


def prepare(plan: Plan, place: Path, accelerator: Any, *, report: Report, out: Log) -> Work:
    """Load the base, encode images and prompts, free the text encoders, add the LoRA."""
    config, family = plan.config, plan.base.family
    from torch import nn

    device: torch.device = accelerator.device
    report(Tick("load the base", 0, 1, plan.base.name))
    parts = with_new_tokens(load(plan.base, config, dtype=precision_dtype(config.precision)), plan.tokens)
    report(Tick("load the base", 1, 1, plan.base.name))
    quantised = _weight_errors(plan, parts, out)
    vectors = add_vectors(plan.tokens, parts, config.tokens, seed=config.seed, steps=config.steps)
    with held(home_dir() / "cache", shared=True), accelerator.main_process_first():  # gc leaves it
        images = _Encoder(plan, parts, device, report, out)
        latents, held_latents = images.latents()
        texts, held_texts, preview_texts, image_texts, generic_texts = images.texts() if not plan.fresh_texts else images.prompts()
        preserved = images.class_prompts() if config.objective.preserve_class is not None else None
        drawing = preview_texts or drawn_prompts(config, len(plan.heldout))
        guidance = float(config.preview.guidance or 0.0)
        unconditional = encode_unconditional(family, parts, guidance=guidance, device=device) if drawing else None
        passes = encode_passes(plan, parts, device=device, report=report, out=out)
        rejected = encode_rejected(plan, parts, device=device, report=report, out=out)
    count = 0 if plan.drawn else len(plan.train) + len(plan.heldout)
    kept = human_bytes(cached_bytes(latents, texts.texts))
    out(f"encoded {counted(count, 'image')} ({kept} in memory); {_encoders_trained(plan)}")
    if plan.fresh_texts:
        for encoder in parts.text_encoders.values():
            encoder.to(device)
    else:
        release(parts)
    state = _train_state(plan, parts, accelerator, latents=latents, texts=texts, vectors=vectors)
    slider, voted = set_passes(plan, state, passes), set_preference(plan, state, rejected)
    if preserved is not None:
        state.extras = (*state.extras, Preserve(preserved, config.objective.preserve_weight))
    probe = None
    if held_latents is not None and held_texts is not None:
        probe = _probes(plan, (held_latents, held_texts), (latents, image_texts))
        probe = with_pairs(plan, probe, voted, rejected) if voted and rejected else probe
    inputs = folder.read_json_if_there(place / folder.INPUTS) or {}
    if probe is not None and drawn_prompts(config, len(plan.heldout)):
        cache = Cache("latents", note=out)
        with held(home_dir() / "cache", shared=True), accelerator.main_process_first():
            base = base_key(inputs.get("base", {}).get("sha256"), config)
            drift = drift_probe(state, generic_texts, unconditional, base=base, cache=cache, report=report)
        probe.seldom = (*probe.seldom, drift)
    previews = None
    if preview_texts is not None:
        previews = PromptPreviews(
            config=config,
            folder=place,
            texts=preview_texts,
            unconditional=unconditional,
            report=report,
            scale=slider.scale if slider else None,
        )
    else:
        parts.vae = nn.Module()  # nothing will be decoded: it is freed too
    return Work(
        plan=plan,
        folder=place,
        state=state,
        probe=probe,
        previews=previews,
        slider=slider,
        report=report,
        out=out,
        inputs=inputs,
        quantised=quantised,
    )


def _weight_errors(plan: Plan, parts: Parts, out: Log) -> dict[str, WeightError]:
    """What quantising changed, by component, also shown."""
    modules = {plan.base.family.denoiser: parts.denoiser, **parts.text_encoders}
    found = {name: error for name, module in modules.items() if (error := weight_error(module)) is not None}
    for name, error in found.items():
        out(error.sentence(name))
    return found


def base_key(sha256: str | None, config: TrainConfig) -> str | None:
    """What a drawn latent depends on of the base: a quantised one is another, and so are the states of quantised text encoders."""
    kept = (config.base_dtype, config.text_encoder_dtype, *([config.compute] if config.compute else []))
    return sha256 if sha256 is None or kept == (None, None) else " ".join(map(str, (sha256, *kept)))


def _encoders_trained(plan: Plan) -> str:
    """What becomes of the text encoders."""
    trained = [*plan.encoders, *([f"the vectors of {', '.join(repr(one.token) for one in plan.tokens)}"] if plan.tokens else [])]
    several = len(trained) > 1 or len(plan.tokens) > 0
    return f"{' and '.join(trained)} {'are' if several else 'is'} trained" if trained else "the text encoders are freed"


def _train_state(
    plan: Plan, parts: Parts, accelerator: Any, *, latents: Latents, texts: TrainingTexts, vectors: Vectors | None
) -> TrainState:
    """The LoRA added, the optimizer over its weights, all on the device and wrapped by accelerate."""
    config, family = plan.config, plan.base.family
    factor = parts.latent_factor
    objective = objective_of(
        parts.prediction,
        parts.scheduler_class,
        parts.scheduler_config,
        objective_functions(config.objective),
        shift=config.objective.shift,
        shifts={(size.height // factor, size.width // factor): shift for size, shift in plan.shifts.items()},
    )
    fused = None if plan.training is None else fuse(plan.training, family, parts)
    modules = learning_modules(family, parts, config)
    swap = BlockSwap(family, parts.denoiser, config.swap_blocks) if config.swap_blocks else None  # before the adapters, which stay
    weights = add_loras(family, modules, config, plan.targets)
    if plan.start is not None:
        set_lora_tensors(modules, start_tensors(plan.start, lora_tensors(modules), scales(modules)))
    if config.base_dtype is not None or config.text_encoder_dtype is not None:
        give_back()  # adding an adapter looks at every weight, which a quantised layer makes anew
    if swap is not None:
        swap.begin(accelerator.device)
    for module in modules.values():
        module.train() if swap is not None and module is parts.denoiser else module.to(accelerator.device).train()
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(module)
    if config.compile is not None:
        compile_blocks(family, parts.denoiser)
    elif accelerator.device.type == "cpu":
        _give_back_between_blocks(plan, parts)
    every = [pair for group in weights.values() for pair in group]
    if vectors is not None:
        vectors.begin(accelerator.device)
        every += vectors.weights()
    optimizer = build_optimizer(choose_optimizer(config.optim), groups_of(modules, every, config), config.optim.lr)
    flat, stacks = _in_one_buffer(plan, modules, optimizer, accelerator)
    guidance = config.objective.guidance if config.objective.guidance is not None else 1.0
    call = denoiser_call(family, parts, modules, guidance=guidance, clip_skip=config.clip_skip, vectors=vectors)
    model, optimizer = accelerator.prepare(call, optimizer) if swap is None else _with_swapped(accelerator, call, optimizer, swap)
    return TrainState(
        config=config,
        family=family,
        parts=parts,
        accelerator=accelerator,
        model=model,
        modules=modules,
        weights=every,
        optimizer=optimizer,
        objective=objective,
        items=plan.items,
        order=plan.order,
        latents=latents,
        texts=texts,
        resolution=max(config.sides),
        precision=config.precision,
        guidance=guidance,
        ema=ema_of(config.ema, [weight for _, weight in every]),
        flat=flat,
        stacks=stacks,
        fused=fused,
        vectors=vectors,
        swap=swap,
        offload=ActivationOffload([call, *parts.text_encoders.values()]) if config.offload_activations else None,
    )


def _give_back_between_blocks(plan: Plan, parts: Parts) -> None:
    """Freed memory back to the system: of a run with a memory budget before its plan is exceeded, of others where blocks are recomputed."""
    activations = plan.estimate.activations or 0
    if plan.memory is not None:
        held = Held(plan.estimate.total)
        held.hold(parts.denoiser, learns=True)
        held.hold(parts.vae)
    elif plan.config.gradient_checkpointing and activations >= LEAST:
        Trimming(activations).watch(blocks_of(plan.base.family, parts.denoiser).values())


def _in_one_buffer(plan: Plan, modules: Mapping[str, Any], optimizer: Any, accelerator: Any) -> tuple[FlatWeights | None, Sequence[Stack]]:
    """The trained weights in one buffer, and the layers whose weights are formed at once.

    Not of several processes, whose gradients accelerate averages weight by weight, nor with new tokens, whose rows have their own.
    """
    from train.adamw import FlatAdamW
    from train.adapters.flat import FlatWeights
    from train.adapters.stacks import stack_layers

    if accelerator.num_processes > 1 or plan.tokens or not plan.layers:
        return None, ()
    stacks = stack_layers(modules) if plan.training is None and may_stack(plan.config, plan.config.precision) else []
    flat = FlatWeights([group["params"] for group in optimizer.param_groups], stacks)
    if isinstance(optimizer, FlatAdamW):
        optimizer.flat = flat
    return flat, stacks


def _with_swapped(accelerator: Any, call: Any, optimizer: Any, swap: BlockSwap) -> tuple[Any, Any]:
    """The denoiser call and the optimizer wrapped by accelerate, which moves no swapped weight and sends none to other processes."""
    from torch.nn.parallel import DistributedDataParallel

    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(call, swap.names_in(call))  # type: ignore[no-untyped-call]
    return tuple(accelerator.prepare(call, optimizer, device_placement=[False, True]))


def groups_of(modules: Mapping[str, Any], weights: Sequence[tuple[str, Any]], config: TrainConfig) -> list[dict[str, Any]]:
    """The optimizer's groups of weights: those of each module, the denoiser first, each with its factor `rate` on the learning rate.

    With LoRA+ the up matrices of a module are a group of their own behind the rest of it. The vectors of new tokens are the last one.
    """
    parts: list[list[Any]] = []
    vectors = [weight for name, weight in weights if name.startswith("tokens.")]
    adapted = [] if config.lora.kind == "none" else list(modules)
    for component in adapted:
        own = [(name, weight) for name, weight in weights if name.startswith(f"{component}.")]
        if config.optim.loraplus_lr_ratio is None:
            parts.append([weight for _, weight in own])
        else:
            parts += [[weight for name, weight in own if is_up(name) == up] for up in (False, True)]
    rates = group_rates(config.optim, len(adapted)) if adapted else []
    if vectors:
        parts, rates = [*parts, vectors], [*rates, token_rate(config)]
    return [{"params": part, "rate": rate} for part, rate in zip(parts, rates, strict=True)]


@dataclass(frozen=True)
class _Encoder:
    """The plan's images and prompts through the caches."""

    plan: Plan
    parts: Parts
    device: torch.device
    report: Report
    out: Log

    def latents(self) -> tuple[Latents, Latents | None]:
        """Of the training images, and of the held-out ones (None without any)."""
        plan = self.plan
        if plan.drawn:
            return drawn_latents(plan.base.family, self.parts, plan.items), None
        every = encode_latents(
            plan.base.family,
            self.parts,
            [*plan.items, *plan.heldout_items],
            device=self.device,
            cache=Cache("latents", note=self.out),
            report=self.report,
            in_memory=not plan.streams,
        )
        trained = len(plan.items)
        return every.part(0, trained), every.part(trained, len(every)) if plan.heldout else None

    def texts(self) -> tuple[CachedTexts, Texts | None, Texts | None, Texts, Texts]:
        """Of the training prompts in all their variants, held-out ones, also without a trigger, the previews', plain and generic ones."""
        plan, dropout = self.plan, self.plan.config.data.caption_dropout
        previews, heldout = plan.config.preview.prompts or [], _heldout_prompts(plan)
        measured = [plan.prompts[image] for image in _measured(plan)]
        training = [prompt for variants in plan.variants for prompt in variants] + ([""] if dropout else [])
        counts = (len(training), len(heldout), len(previews))
        every = encode_texts(
            plan.base.family,
            self.parts,
            [*training, *heldout, *previews, *measured, *drawn_prompts(plan.config, len(plan.heldout))],
            device=self.device,
            clip_skip=plan.config.clip_skip,
            cache=Cache("texts", note=self.out),
            report=self.report,
        )
        first, second, third = counts[0], counts[0] + counts[1], sum(counts)
        held = every.part(first, second) if counts[1] else None
        drawn = every.part(second, third) if counts[2] else None
        starts = itertools.accumulate((len(variants) for variants in plan.variants), initial=0)
        choices = tuple(range(start, start + len(variants)) for start, variants in zip(starts, plan.variants, strict=False))
        training_texts = CachedTexts(every.part(0, first), choices, plan.config.seed, dropout, first - 1 if dropout else None)
        fourth = third + len(measured)
        return training_texts, held, drawn, every.part(third, fourth), every.part(fourth, len(every.index))

    def class_prompts(self) -> Texts | Prompts:
        """Of the training prompts, with the class in place of the trigger."""
        plan = self.plan
        prompts = class_prompts(plan.config, plan.train)
        if plan.fresh_texts:
            return Prompts(tuple(prompts))
        return encode_texts(
            plan.base.family,
            self.parts,
            prompts,
            device=self.device,
            clip_skip=plan.config.clip_skip,
            cache=Cache("texts", note=self.out),
            report=self.report,
        )

    def prompts(self) -> tuple[FreshTexts, Prompts | None, Prompts | None, Prompts, Prompts]:
        """The same as texts, for text encoders that are trained."""
        plan = self.plan
        held, previews = (tuple(some or ()) for some in (_heldout_prompts(plan), plan.config.preview.prompts))
        measured = Prompts(tuple(plan.prompts[image] for image in _measured(plan)))
        count = Remembered(partial(plan.base.family.count_tokens, self.parts))
        training = FreshTexts(plan.train, plan.config.data, plan.config.seed, count)
        generic = Prompts(tuple(drawn_prompts(plan.config, len(plan.heldout))))
        return training, Prompts(held) if held else None, Prompts(previews) if previews else None, measured, generic


def _heldout_prompts(plan: Plan) -> list[str]:
    """Of the held-out images, and behind them those without the trigger."""
    return [*plan.heldout_prompts, *bare_prompts(plan.heldout, plan.heldout_prompts, plan.config.data).values()]


def _measured(plan: Plan) -> list[int]:
    """The training images that are measured at some time."""
    return list(dict.fromkeys([*probed_images(plan.train), *measured_images(plan.train)]))


def _probes(plan: Plan, heldout: tuple[Latents, Texts | Prompts], trained: tuple[Latents, Texts | Prompts]) -> Probes:
    """Held-out images and some training images, all at the same number of timesteps. `trained`: all latents, the texts of `_measured`."""
    points, chosen = points_of(len(plan.heldout)), probed_images(plan.train)
    held = _probe(plan.heldout, *heldout, points)
    bare = tuple(bare_prompts(plan.heldout, plan.heldout_prompts, plan.config.data))
    return Probes(
        heldout=held,
        trained=_training_probe(plan, *trained, chosen, points),
        captions=other_captions(plan.heldout_prompts),
        beside=(*([DeltaNorm()] if plan.layers else []), *([TriggerProbe(held, bare)] if bare else [])),
        seldom=(_image_probe(plan, *trained, points),),
        image_names=[plan.train[image].name for image in measured_images(plan.train)],
    )


def _image_probe(plan: Plan, latents: Latents, texts: Texts | Prompts, points: int) -> ImageProbe:
    """The training images whose own losses are kept."""
    images, chosen = measured_images(plan.train), probed_images(plan.train)
    known = [(images.index(image), row) for row, image in enumerate(chosen) if image in images]
    probe = _training_probe(plan, latents, texts, images, points)
    prompts = [plan.prompts[image] for image in images]
    return ImageProbe(probe, other_captions(prompts), known, prompts)


def _training_probe(plan: Plan, latents: Latents, texts: Texts | Prompts, images: Sequence[int], points: int) -> Probe:
    """These training images; `texts` are those of `_measured`."""
    first = {item.image: number for number, item in reversed(list(enumerate(plan.items)))}  # of several sizes the smallest
    own = latents.of([first[image] for image in images])
    places = {image: place for place, image in enumerate(_measured(plan))}
    return _probe([plan.train[image] for image in images], own, texts.of([places[image] for image in images]), points)


def _probe(samples: Sequence[Sample], latents: Latents, texts: Texts | Prompts, points: int) -> Probe:
    return Probe(
        latents=latents,
        texts=texts,
        sha256s=[sample.sha256 for sample in samples],
        names=[sample.name for sample in samples],
        points=points,
    )
