"""Makes the plan of a run from what was checked: prompts as they are read, defaults as values, room, memory and time, notes."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.text.clip_chunks import chunks_needed
from registry.budget.free import process_bytes
from registry.detect.few_step import FoundFewStep, few_step_of, steps_of_test
from registry.errors import Refused
from registry.launch.processes import processes_of
from registry.progress import Report, silent
from registry.quantised.skeleton import stored_titles
from registry.swapping.blocks import Swap
from train.adapters.ranks import Ranks, ranks_of
from train.choices import moments_of
from train.config import TrainConfig, changed
from train.data.buckets import Bucket
from train.data.captions import Count, Remembered, read_part, shortened
from train.data.dataset import triggers_of
from train.data.texts.checks import captioning_notes
from train.data.texts.variants import plain_prompt, prompts_of_all
from train.environment import environment_notes
from train.loop.pace import times_due
from train.lora import encoder_targets, factor_shapes, matched, parameter_count
from train.measures.cost import measured_beside
from train.measures.drift import generic_prompts
from train.measures.early_stop import early_stop_notes
from train.optim_trial import Trial
from train.plan.checks import Checked, check, in_steps
from train.plan.compiled import compile_notes, kinds_of_blocks
from train.plan.compute import compute_notes
from train.plan.defaults import defaults_of
from train.plan.estimate import Estimate, Model, Weights, estimate, human_bytes, of_two_passes
from train.plan.fit import changes_of, find_settings
from train.plan.memory import MemoryPlan
from train.plan.notes import contrast_notes, few_step_notes, objective_notes, settings_notes, slider_notes
from train.plan.offload import offload_notes
from train.plan.optim_notes import optimizer_notes
from train.plan.plan import Plan
from train.plan.quantised import quantised_layers, quantised_notes
from train.plan.savings import ALL, Search
from train.plan.swap import swap_notes
from train.plan.traces import Traces
from train.preference.rows import of_pairs, preference_notes
from train.slider.dataset import is_drawn, slider_seconds
from train.tokens.captions import token_counts
from train.tokens.rows import token_notes

if TYPE_CHECKING:
    from registry.store import Store

SHOWN = 5  # prompts printed as they are tokenised
LINE = 240  # characters of the tokens of one


def make_plan(config: TrainConfig, store: Store, *, search: Search = ALL, report: Report = silent) -> Plan:
    """The plan of a run, with the settings that are found for its memory. `search` is what of them stays.

    Raises Refused or Faults with everything that is wrong; nothing is written.
    """
    found, memory, process = _fitted(config, store, search, report)
    count = Remembered(partial(found.base.family.count_tokens, found.parts))
    data = found.config.data
    prompts, heldout_prompts = ([plain_prompt(sample, data, count) for sample in half] for half in (found.split.train, found.split.heldout))
    variants = prompts_of_all(found.split.train, prompts, data, found.config.seed, count)
    shifts = _shifts(found)
    generic = generic_prompts(found.config, [*prompts, *heldout_prompts], triggers_of(found.split.train, data))
    resolved = _resolved(found, shifts, heldout_prompts or prompts, generic, store)
    ranks, weights = _counted(found, resolved)
    found = replace(found, trial=_with_moments(found, resolved))
    latents = _latents_bytes(found)
    disk = _disk_bytes(found, weights, latents)
    free = _free(Path(resolved.out), needed=disk)
    few_step = few_step_of(found.base.family.few_steps, found.base.record)
    trained = (prompt for several in variants for prompt in several)
    every = list(dict.fromkeys([*trained, *heldout_prompts, *(resolved.preview.prompts or [])]))
    kept = quantised_layers(found.base.family, found.parts, resolved)
    estimated = _estimated(found, resolved, _model(found, weights, process), latents, beside=_beside(found, resolved, heldout_prompts))
    return Plan(
        config=resolved,
        base=found.base,
        train=found.split.train,
        heldout=found.split.heldout,
        items=found.items,
        heldout_items=found.heldout_items,
        order=found.order,
        streams=_streams(found.config, latents),
        heldout_source=found.split.source,
        prompts=tuple(prompts),
        variants=variants,
        heldout_prompts=tuple(heldout_prompts),
        dataset=found.dataset,
        targets=found.targets,
        encoders=tuple(found.encoders),
        layers=len(ranks),
        ranks=ranks,
        parameters=weights,
        prompt_tokens=count("")[1],
        shown=tuple(_tokenised(found, prompt, count) for prompt in _examples(variants)),
        quantised=kept,
        compiled=kinds_of_blocks(found.base.family, found.parts) if resolved.compile else Counter(),
        truncated=tuple(note for prompt in every if (note := _cut(prompt, count, found))),
        estimate=estimated,
        free_bytes=free,
        disk_bytes=disk,
        training=found.training,
        start=found.start,
        slider=found.slider,
        preference=found.preference,
        class_images=found.class_images,
        tokens=found.tokens,
        few_step=few_step,
        processes=processes_of(),
        memory=memory,
        shifts=shifts if len(set(shifts.values())) > 1 else {},
        notes=(
            *(memory.notes() if memory else ()),
            *_notes(found, resolved, prompts, count, estimated.swap),
            *_empty_chunks(every, count, config.prompt_chunks),
        ),
    )


def _fitted(config: TrainConfig, store: Store, search: Search, report: Report) -> tuple[Checked, MemoryPlan | None, int]:
    """What was checked, with the settings that are found for `memory`; and the bytes of this process that were counted."""
    found = check(config, store, report=report)
    process = process_bytes(found.device)
    if config.memory is None:
        return found, None, process
    latents = _latents_bytes(found)
    sized = replace(found, trial=_with_moments(found, found.config))
    made = find_settings(
        found.config,
        _model(sized, _counted(found, found.config)[1], process),
        lambda one, traced: _with_rest(found, one, traced, latents),
        search=search,
        processes=processes_of(),
    )
    changes = changes_of(found.config, made)
    if not changes:
        return found, made, process
    config = changed(config, changes)
    if found.class_images is not None and {"base_dtype", "text_encoder_dtype"} & changes.keys():
        return check(config, store, report=report), made, process  # these are drawn by the base as it is kept
    order = replace(found.order, batch_size=config.batch_size, accumulate=config.accumulate)
    return replace(found, config=in_steps(config, order), order=order), made, process


def _examples(variants: Sequence[Sequence[str]]) -> list[str]:
    """The first prompts that differ: at most three of an image."""
    some = (prompt for several in variants for prompt in list(dict.fromkeys(several))[:3])
    return list(itertools.islice(dict.fromkeys(some), SHOWN))


def _shifts(found: Checked) -> dict[Bucket, float]:
    """The time shift that each size is drawn with; none where it is given, or the base has none."""
    if found.config.objective.shift is not None:
        return {}
    buckets = dict.fromkeys(item.bucket for item in (*found.items, *found.heldout_items))
    shifts = {bucket: found.base.family.shift(found.parts, bucket.height, bucket.width) for bucket in buckets}
    return {bucket: shift for bucket, shift in shifts.items() if shift is not None}


def _resolved(found: Checked, shifts: Mapping[Bucket, float], captions: Sequence[str], generic: list[str], store: Store) -> TrainConfig:
    """The settings with every default as a value; objective.shift stays null where sizes have several."""
    sides = found.sizes.sides
    values = set(shifts.values())
    shift = values.pop() if len(values) == 1 else None
    resolution = sides[0] if len(sides) == 1 else list(sides)
    return changed(
        found.config, defaults_of(found.config, found.base, resolution, shift, found.precision, captions, generic, store.lasting)
    )


def _counted(found: Checked, config: TrainConfig) -> tuple[Ranks, int]:
    """(rank and alpha of every layer, weights) of the adapter on the denoiser and on the text encoders that are trained."""
    lora = config.lora
    count, ranks = parameter_count(found.parts.denoiser, found.layers, lora), ranks_of(found.layers, lora)
    for name in found.encoders:
        encoder = found.parts.text_encoders[name]
        inside = matched(encoder, encoder_targets(found.base.family, name, encoder, clip_skip=config.clip_skip))
        count += parameter_count(encoder, inside, lora)
        ranks |= {f"{name}.{layer}": values for layer, values in ranks_of(inside, lora).items()}
    return ranks, count


def _with_moments(found: Checked, config: TrainConfig) -> Trial:
    """The optimizer's trial with what it keeps for weights of the adapter's own shapes, where these are a LoRA's factors."""
    shapes = factor_shapes(found.parts.denoiser, found.layers, config.lora)
    for name in found.encoders:
        encoder = found.parts.text_encoders[name]
        inside = matched(encoder, encoder_targets(found.base.family, name, encoder, clip_skip=config.clip_skip))
        shapes += factor_shapes(encoder, inside, config.lora)
    kept = moments_of(config, shapes) if shapes else None
    return found.trial if kept is None else replace(found.trial, moments=kept)


def _latents_bytes(found: Checked) -> int:
    """Mean and logvar of every view of every image, fp32."""
    pixels = sum(item.bucket.area * len(item.views) for item in (*found.items, *found.heldout_items))
    each = 2 if found.preference else 1  # a pair has two images
    return each * 2 * 4 * found.base.family.channels(found.parts) * pixels // found.parts.latent_factor**2


def _disk_bytes(found: Checked, weights: int, latents: int) -> int:
    """The checkpoints that are kept at once, the adapter in two dialects, the cached latents."""
    trained = found.trial.own_average or found.config.ema.decay is not None  # beside the adapter's
    return round(weights * 4 * (1 + _moments(found) + trained) * (found.config.checkpoint.keep + 2)) + 2 * weights * 4 + latents


def _moments(found: Checked) -> float:
    """Numbers of fp32 that are kept for each weight: the optimizer's, and the moving average."""
    return found.trial.moments + (found.config.ema.decay is not None)


def _estimated(found: Checked, config: TrainConfig, model: Model, latents: int, *, beside: tuple[int, int, int]) -> Estimate:
    """Memory, that of the encoded images too, and time."""
    traced = estimate(
        model,
        config,
        images=(sum(len(item.views) for item in found.items), len(found.heldout_items)),
        beside=beside,
        share=_share(found),
    )
    few_step = few_step_of(found.base.family.few_steps, found.base.record)
    traced = _with_rest(found, config, traced, latents)
    seconds = slider_seconds(found.slider, traced.seconds, drawn=is_drawn(found.dataset))
    seconds = _with_class_images(found, config, _with_test(config, seconds, few_step))
    return replace(traced, seconds=seconds)


def _with_rest(found: Checked, config: TrainConfig, traced: Estimate, latents: int) -> Estimate:
    """The estimate with the encoded images, and with the further passes of some objectives."""
    if config.objective.preserve_class is not None:
        traced = preserving(traced)
    if found.preference is not None:
        traced = of_pairs(traced)
    memory = {**traced.memory, "latents": 0 if _streams(config, latents) else latents}
    return replace(traced, memory=memory)


def _model(found: Checked, weights: int, process: int) -> Model:
    """What the estimate is of."""
    family, precision = found.base.family, found.precision
    return Model(
        weights=Weights(family, found.parts, precision),
        traces=Traces(
            family,
            found.parts,
            found.targets,
            precision,
            found.sizes.sides[-1],
            found.tokens,
            on_cpu=found.device.type == "cpu",
            forms=found.training is None and processes_of() == 1,
        ),
        count=weights + sum(token.parameters for token in found.tokens),
        moments=_moments(found),
        device=found.device,
        process=process,
    )


def _with_class_images(found: Checked, config: TrainConfig, seconds: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """The seconds with those of the class images that are still to be drawn; a forward pass of an image is a third of its step."""
    if seconds is None or found.class_images is None or not (missing := len(found.class_images.missing)):
        return seconds
    render = found.class_images.render
    passes = missing * int(render.steps or 0) * (2 if render.guided else 1)
    forward = seconds["steps"] / (config.steps * config.images_per_step * _share(found)) / 3
    return {**seconds, "class images": passes * forward}


def _beside(found: Checked, config: TrainConfig, heldout_prompts: Sequence[str]) -> tuple[int, int, int]:
    """Images that go through the denoiser for what is measured beside the held-out loss."""
    guided = found.base.family.guided(found.parts, float(config.preview.guidance or 0.0), negative=False)
    return measured_beside(found.split, heldout_prompts, config, guided=guided)


def _with_test(config: TrainConfig, seconds: Mapping[str, float] | None, few_step: FoundFewStep | None) -> Mapping[str, float] | None:
    """The seconds with those of the few-step test, where there will be one: two rounds of previews in few steps and two in many."""
    if seconds is None or few_step is None or not config.preview.prompts or not config.preview.steps:
        return seconds
    rounds = times_due(0, config.steps, [config.preview.every or config.steps]) + 1
    few, many = steps_of_test(few_step.kind.steps)
    return {**seconds, "few-step test": seconds["previews"] / rounds * 2 * (few + many) / config.preview.steps}


def preserving(traced: Estimate) -> Estimate:
    """The estimate with a second pass that is kept for the gradient, and one of the base without any."""
    seconds = traced.seconds and {**traced.seconds, "steps": traced.seconds["steps"] * 7 / 3}  # a backward pass is two forward ones
    return replace(of_two_passes(traced), seconds=seconds)


def _share(found: Checked) -> float:
    """Work of the average pass: pixels of its images against those of a full batch at the largest resolution."""
    groups = found.order.groups
    pixels = sum(found.items[item].bucket.area for group in groups for item in group)
    passes = found.order.epoch_steps * found.config.accumulate * found.order.processes
    return pixels / (passes * found.config.batch_size * found.sizes.sides[-1] ** 2)


def _streams(config: TrainConfig, latents: int) -> bool:
    """Whether so many bytes of encoded images stay in the cache."""
    return latents > config.data.memory * 2**30


def _notes(found: Checked, config: TrainConfig, prompts: Sequence[str], count: Count, swap: Swap | None) -> tuple[str, ...]:
    """Notes on the images, the base, the settings and the environment."""
    return (
        *found.dataset.notes,
        *(f"held out: {note}" for note in found.split.notes),
        *found.parts.warnings,
        *few_step_notes(
            few_step_of(found.base.family.few_steps, found.base.record), training=found.training is not None, tokens_alone=not found.layers
        ),
        *captioning_notes(found.split.train, config.data),
        *settings_notes(config, found.split, found.order, prompts, count),
        *slider_notes(found.slider, config),
        *preference_notes(found.preference, config, found.dataset),
        *early_stop_notes(config.heldout, config.steps),
        *contrast_notes(config, distilled=not found.base.family.classifier_free(found.parts)),
        *optimizer_notes(config, found.trial),
        *swap_notes(swap, config, found.device, processes_of()),
        *offload_notes(config, found.device),
        *compute_notes(config, found.device),
        *compile_notes(config),
        *objective_notes(config.objective, found.parts.prediction),
        *environment_notes(config),
        *quantised_notes(config, stored_titles(found.parts.denoiser)),
        *token_notes(
            found.tokens,
            token_counts(found.tokens, found.split.train, config.data),
            images=len(found.split.train),
            parts=found.parts,
        ),
    )


def _tokenised(found: Checked, prompt: str, count: Count) -> str:
    """The prompt's tokens as the first tokenizer cuts them, and how many fit."""
    tokenizer: Any = next(iter(found.parts.tokenizers.values()), None)
    read = read_part(prompt, count)
    pieces = tokenizer.tokenize(read, verbose=False) if hasattr(tokenizer, "tokenize") else [read]  # a processor, or a family without one
    tokens = [str(token).replace("</w>", "").replace("▁", " ").strip() for token in pieces]
    needs, fits = count(prompt)
    return f"{shortened(' | '.join(tokens), LINE)}   ({needs} of {fits} tokens)"


def _cut(prompt: str, count: Count, found: Checked) -> str | None:
    """The note of a prompt that the model does not read whole."""
    needs, fits = count(prompt)
    if needs <= fits:
        return None
    more = ""
    if found.base.family.one_chunk is None:
        more = f"; prompt_chunks={chunks_needed(needs, fits, chunks=found.config.prompt_chunks)} reads all of it"
    return (
        f"{shortened(prompt)!r} needs {needs} tokens, {fits} fit: the rest is truncated (behind {read_part(prompt, count)[-30:]!r}){more}"
    )


def _empty_chunks(prompts: Sequence[str], count: Count, chunks: int) -> list[str]:
    """The note on chunks that no prompt reaches."""
    most = max((chunks_needed(*count(prompt), chunks=chunks) for prompt in prompts), default=1)
    if most >= chunks:
        return []
    return [
        f"prompt_chunks is {chunks}, and the longest prompt needs {most}: the others are empty chunks, which A1111 and ComfyUI do not add"
        " to a short prompt"
    ]


def _free(out: Path, *, needed: int) -> int:
    """Free bytes where the run folder will be. Raises Refused when they are too few."""
    place = out
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed * 1.1:
        raise Refused(f"The run needs about {human_bytes(needed)} in {out}, and {human_bytes(free)} are free. Make room, or set out=.")
    return free
