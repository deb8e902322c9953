"""Makes the plan of a run: checks everything that can be checked before models are loaded, and reports all faults together."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from registry.errors import Faults, Refused
from registry.parts import Parts
from registry.progress import Report, silent
from registry.store import check_name
from train.choices import Choice, choose_objective, try_optimizer
from train.config import TrainConfig, changed
from train.data.captions import prompt_of, read_part, shortened
from train.data.dataset import ImageSet
from train.data.split import TrainSplit, check_leaks, choose_split, read_dataset
from train.environment import check_environment, environment_notes
from train.loop.trackers import trackers_of
from train.lora import encoder_targets, learning_encoders, matched, parameter_count, targets_of
from train.objective.targets import TARGETS, ObjectiveFunctions, objective_of
from train.plan.base import Base, find_base, resolve_device, resolve_precision, skeleton
from train.plan.defaults import defaults_of
from train.plan.estimate import estimate, human_bytes
from train.plan.notes import settings_notes
from train.plan.plan import Plan
from train.rate import learning_rate

if TYPE_CHECKING:
    from registry.store import Store

T = TypeVar("T")

SHOWN = 5  # prompts printed as they are tokenised
LINE = 240  # characters of the tokens of one


class Attempts:
    """Runs checks one after another and keeps what they refuse, so that all faults are reported together."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def __call__(self, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except Faults as error:
            title = str(error).splitlines()[0]
            self.faults += [f"{title} {fault}" for fault in error.faults]
        except Refused as error:
            self.faults.append(str(error))
        return None

    def done(self) -> None:
        if len(self.faults) == 1:
            raise Refused(self.faults[0])
        if self.faults:
            raise Faults("This cannot be trained as it is:", self.faults)


def make_plan(config: TrainConfig, store: Store, *, report: Report = silent) -> Plan:
    """The plan of a run. Raises Refused or Faults with everything that is wrong; nothing is written."""
    attempts = Attempts()
    moments = attempts(lambda: try_optimizer(config))
    attempts(lambda: trackers_of(config.tracker))
    attempts(lambda: check_name(config.name))
    device = attempts(lambda: resolve_device(config.device))
    attempts(lambda: check_environment(device))
    precision = attempts(lambda: resolve_precision(config.precision, device)) if device else None
    base = attempts(lambda: find_base(config, store))
    sampling = config.objective.timesteps or (base.family.timestep_sampling if base else "uniform")
    functions = attempts(lambda: choose_objective(config.objective, sampling))
    dataset = attempts(lambda: read_dataset(config, report))
    heldout = attempts(lambda: choose_split(config, dataset, report)) if dataset else None
    if heldout:
        config = in_steps(config, images=len(heldout.train))
    attempts(lambda: learning_rate(config, config.steps - 1))
    parts = attempts(lambda: skeleton(base, config)) if base else None
    targets = attempts(lambda: _targets(base, parts, config)) if base and parts else None
    if parts and functions:
        attempts(lambda: _objective(parts, functions))
    encoders = attempts(lambda: learning_encoders(base.family, parts, config)) if base and parts else None
    resolution = attempts(lambda: _resolution(config, base, parts)) if base and parts else None
    if base and parts and config.clip_skip:
        attempts(lambda: _try_clip_skip(base, parts, config))
    if dataset and heldout:
        attempts(lambda: check_leaks(heldout))
    if base and parts and config.data.trigger:
        attempts(lambda: _check_trigger(base, parts, str(config.data.trigger)))
    attempts.done()
    assert (
        base
        and parts
        and dataset
        and heldout
        and targets
        and precision
        and device
        and resolution
        and encoders is not None
        and moments is not None
    )
    return _planned(config, base, parts, dataset, heldout, targets[0], targets[1], encoders, resolution, device, precision, moments)


def in_steps(config: TrainConfig, *, images: int) -> TrainConfig:
    """The settings with epochs as steps: the least number that shows each of the images so often."""
    if config.epochs is None:
        return config
    steps = max(1, math.ceil(config.epochs * images / (config.images_per_step * _processes())))
    return replace(config, steps=steps, epochs=None)


def _processes() -> int:
    """Processes that share the work, as accelerate and torchrun set them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _objective(parts: Parts, functions: Mapping[str, Choice]) -> None:
    """Refuse an objective that does not suit what the base predicts."""
    bound = ObjectiveFunctions(**{name: choice.bound for name, choice in functions.items()})
    objective_of(parts.prediction, parts.scheduler_class, parts.scheduler_config, bound)


def _targets(base: Base, parts: Parts, config: TrainConfig) -> tuple[str | list[str], list[str]]:
    _ = TARGETS[parts.prediction]
    if config.objective.shift is not None and parts.prediction != "flow":
        raise Refused(
            f"objective.shift={config.objective.shift:g}: {base.name} predicts {parts.prediction}; only flow models have a time shift."
        )
    targets = targets_of(base.family, config.lora.targets)
    return targets, matched(parts.denoiser, targets)


def _try_clip_skip(base: Base, parts: Parts, config: TrainConfig) -> None:
    """Refuse a clip_skip that has no meaning for this family or is too deep, tried on the empty model."""
    import torch

    with torch.no_grad():
        base.family.encode_prompts(parts, [""], clip_skip=config.clip_skip)


def _check_trigger(base: Base, parts: Parts, trigger: str) -> None:
    """Refuse a trigger that no prompt could be trained with, because it is longer than what the model reads."""
    needs, fits = base.family.count_tokens(parts, trigger)
    if needs > fits:
        raise Refused(f"data.trigger={shortened(trigger)!r} needs {needs} tokens, and {base.name} reads {fits}. Give a shorter one.")


def _resolution(config: TrainConfig, base: Base, parts: Parts) -> int:
    side = config.resolution or parts.resolution
    multiple = base.family.size_multiple
    if side % multiple:
        near = max(multiple, round(side / multiple) * multiple)
        raise Refused(f"resolution={side}: {base.family.name} needs multiples of {multiple} pixels, for example {near}.")
    most = base.family.largest_side(parts)
    if most is not None and side > most:
        raise Refused(
            f"resolution={side}: this build of {base.family.name} has position embeddings for {most} pixels a side. Give at most that."
        )
    return side


def _planned(
    config: TrainConfig,
    base: Base,
    parts: Parts,
    dataset: ImageSet,
    split: TrainSplit,
    targets: str | list[str],
    layers: list[str],
    encoders: list[str],
    resolution: int,
    device: Any,
    precision: Any,
    moments: int,
) -> Plan:
    count_tokens = cache(partial(base.family.count_tokens, parts))  # several checks ask for each prompt
    prompts, heldout_prompts = (
        [prompt_of(s.caption, config.data.trigger, count=count_tokens) for s in half] for half in (split.train, split.heldout)
    )
    shift = base.family.shift(parts, resolution, resolution)
    resolved = changed(config, defaults_of(config, base, resolution, shift, precision, heldout_prompts or prompts))
    layer_count, count = _counted(base, parts, resolved, layers, encoders)
    every = list(dict.fromkeys([*prompts, *heldout_prompts, *(resolved.preview.prompts or [])]))
    latents = 2 * 4 * base.family.channels(parts) * (resolution // parts.latent_factor) ** 2 * (len(split.train) + len(split.heldout))
    disk = count * 4 * (1 + moments) * (config.checkpoint.keep + 2) + 2 * count * 4 + latents
    free = _free(Path(resolved.out), needed=disk)
    traced = estimate(
        base.family,
        parts,
        resolved,
        targets=targets,
        precision=precision,
        device=device,
        side=resolution,
        count=count,
        moments=moments,
        images=(len(split.train), len(split.heldout)),
    )
    notes = (
        *dataset.notes,
        *(f"held out: {note}" for note in split.notes),
        *parts.warnings,
        *settings_notes(resolved, split, prompts, count_tokens),
        *environment_notes(resolved),
    )
    return Plan(
        config=resolved,
        base=base,
        train=split.train,
        heldout=split.heldout,
        heldout_source=split.source,
        prompts=tuple(prompts),
        heldout_prompts=tuple(heldout_prompts),
        dataset=dataset,
        targets=targets,
        encoders=tuple(encoders),
        layers=layer_count,
        parameters=count,
        shown=tuple(_tokenised(base, parts, prompt) for prompt in list(dict.fromkeys(prompts))[:SHOWN]),
        truncated=tuple(note for prompt in every if (note := _cut(base, parts, prompt))),
        estimate=replace(traced, memory={**traced.memory, "latents": latents}),
        free_bytes=free,
        disk_bytes=disk,
        processes=_processes(),
        notes=notes,
    )


def _counted(base: Base, parts: Parts, config: TrainConfig, layers: list[str], encoders: list[str]) -> tuple[int, int]:
    """(layers, weights) of the LoRA on the denoiser and on the text encoders that are trained."""
    rank = config.lora.rank
    count, number = parameter_count(parts.denoiser, layers, rank), len(layers)
    for name in encoders:
        encoder = parts.text_encoders[name]
        inside = matched(encoder, encoder_targets(base.family, name, encoder, clip_skip=config.clip_skip))
        count, number = count + parameter_count(encoder, inside, rank), number + len(inside)
    return number, count


def _tokenised(base: Base, parts: Parts, prompt: str) -> str:
    """The prompt's tokens as the first tokenizer cuts them, and how many fit."""
    tokenizer: Any = next(iter(parts.tokenizers.values()), None)
    read = read_part(prompt, partial(base.family.count_tokens, parts))
    pieces = tokenizer.tokenize(read) if hasattr(tokenizer, "tokenize") else [read]  # a processor, or a family without one
    tokens = [str(token).replace("</w>", "").replace("▁", " ").strip() for token in pieces]
    needs, fits = base.family.count_tokens(parts, prompt)
    return f"{shortened(' | '.join(tokens), LINE)}   ({needs} of {fits} tokens)"


def _cut(base: Base, parts: Parts, prompt: str) -> str | None:
    needs, fits = base.family.count_tokens(parts, prompt)
    if needs <= fits:
        return None
    read = read_part(prompt, partial(base.family.count_tokens, parts))
    return f"{shortened(prompt)!r} needs {needs} tokens, {fits} fit: the rest is truncated (behind {read[-30:]!r})"


def _free(out: Path, *, needed: int) -> int:
    """Free bytes where the run folder will be. Raises Refused when they are too few."""
    place = out
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed * 1.1:
        raise Refused(f"The run needs about {human_bytes(needed)} in {out}, and {human_bytes(free)} are free. Make room, or set out=.")
    return free
