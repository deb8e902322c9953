"""Checks of a run's settings, its base and its data before models are loaded; all faults are reported together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from registry.architectures.vae.tiles import check_tile
from registry.errors import Faults, Refused
from registry.files.write_failure import refuse_file_as_folder
from registry.home import expanded
from registry.launch.processes import processes_of
from registry.parts import Parts
from registry.progress import Report
from registry.store import check_name
from train.adapters.ranks import check_patterns
from train.adapters.start import StartAdapter, find_start
from train.choices import Choice, choose_objective, functions_of, preference_of, slider_of, try_optimizer
from train.config import Precision, TrainConfig
from train.data.captions import shortened
from train.data.dataset import ImageSet, Sample, triggers_of
from train.data.items import Item, Sizes, heldout_items, items_of
from train.data.split import TrainSplit, check_leaks, choose_split, read_dataset
from train.data.texts.checks import check_captioning
from train.data.views import check_flip
from train.environment import check_environment
from train.loop.batches import Order, order_of
from train.loop.preserve import check_preserve
from train.loop.trackers import trackers_of
from train.lora import check_learns, encoder_targets, file_ranks, kind_of, learning_encoders, matched, targets_of
from train.masks.views import check_views
from train.measures.drift import check_generic
from train.measures.early_stop import check_early_stop
from train.objective.contrast import check_contrast
from train.objective.preference import Preference
from train.objective.slider import Slider
from train.objective.targets import TARGETS, objective_of
from train.objective.zero_terminal_snr import check_zero_terminal_snr
from train.optim_trial import Trial
from train.plan.base import Base, find_base, resolve_device, resolve_precision, skeleton
from train.plan.compiled import check_compiler
from train.plan.compute import check_device_computes
from train.plan.offload import check_offload
from train.plan.optim_notes import check_average, check_loraplus, check_norms
from train.plan.quantised import check_device, check_stored
from train.plan.swap import check_swap
from train.preference.dataset import preference_set
from train.preference.split import preference_split
from train.prior.drawn import DrawnImages, drawn_images
from train.prior.images import check_captions, with_class_images
from train.rate import learning_rate
from train.slider.dataset import slider_dataset, slider_split
from train.tokens.captions import check_token_captions
from train.tokens.new_token import NewToken, find_tokens, with_new_tokens
from train.training_adapter import TrainingAdapter, find_training_adapter

if TYPE_CHECKING:
    import torch

    from registry.store import Store

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Settings that passed, epochs as steps, and what they name: found, without weights."""

    config: TrainConfig
    base: Base
    parts: Parts
    dataset: ImageSet
    split: TrainSplit
    targets: str | list[str]  # peft's target_modules
    layers: list[str]  # of the denoiser, that they match
    encoders: list[str]  # text encoders that learn
    sizes: Sizes
    items: tuple[Item, ...]
    heldout_items: tuple[Item, ...]
    order: Order
    device: torch.device
    precision: Precision
    trial: Trial  # of the optimizer
    training: TrainingAdapter | None  # fused while training
    start: StartAdapter | None  # that is continued
    slider: Slider | None
    preference: Preference | None  # learned from votes
    class_images: DrawnImages | None  # that the base draws
    tokens: tuple[NewToken, ...]  # that are trained


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


def check(config: TrainConfig, store: Store, *, report: Report) -> Checked:
    """The settings with what they name. Raises Refused or Faults with everything that is wrong; nothing is written."""
    attempts = Attempts()
    trial, device, precision = _alone(config, attempts)
    base = attempts(lambda: find_base(config, store))
    sampling = config.objective.timesteps or (base.family.timestep_sampling if base else "uniform")
    functions = attempts(lambda: choose_objective(config.objective, sampling))
    if base:
        attempts(lambda: base.family.check_chunks(config.prompt_chunks))
    slider = attempts(lambda: slider_of(config.objective)) if functions else None
    preference = attempts(lambda: preference_of(config.objective)) if functions else None
    images = attempts(lambda: _images(config, slider, preference, report)) if functions else None
    parted = attempts(lambda: _split(config, slider, preference, images, report)) if images else None
    parts = attempts(lambda: skeleton(base, config)) if base else None
    tokens = attempts(partial(find_tokens, config, base.family, parts)) or () if base and parts else ()
    parts = with_new_tokens(parts, tokens) if parts else None
    targets = attempts(lambda: _targets(base, parts, config)) if base and parts else None
    if base and parts and targets:
        attempts(lambda: _check_patterns(base, parts, config, targets[1]))
    if parts and functions:
        attempts(lambda: _objective(parts, config, functions))
    encoders = attempts(lambda: learning_encoders(base.family, parts, config)) if base and parts else None
    training, start = _adapters(config, base, parts, targets[0], store, attempts) if base and parts and targets else (None, None)
    sizes = attempts(lambda: _sizes(config, base, parts)) if base and parts else None
    drawn = attempts(lambda: drawn_images(config, base, sizes.sides[-1], precision, store)) if base and sizes and precision else None
    dataset, heldout = attempts(lambda: with_class_images(images, parted, drawn)) or (images, parted)
    sizes_then = sizes or Sizes(sides=config.sides or (512,))
    items, held = (items_of(heldout.train, sizes_then), heldout_items(heldout.heldout, sizes_then)) if heldout else ((), ())
    pairs = len(items) // 2 if slider and not slider.by_text else 0  # the negative images' items are behind the positive ones'
    order = order_of(config, items[:pairs] if pairs else items, processes=processes_of())
    attempts(lambda: _contrast(config, parts, is_slider=slider is not None))
    config = (attempts(lambda: in_steps(config, order)) or config) if items else config
    attempts(lambda: learning_rate(config, config.steps - 1))
    if parts and device:
        attempts(partial(check_stored, config, parts, device))
    if base and parts and device and config.swap_blocks:
        attempts(partial(check_swap, config, base.family, parts, device))
    if parts and config.preview.vae_tiling is not None:
        attempts(partial(check_tile, parts, config.preview.vae_tiling, setting="preview.vae_tiling"))
    if base and parts and config.clip_skip:
        attempts(lambda: _try_clip_skip(base, parts, config))
    if dataset and heldout:
        _check_split(config, heldout, (*items, *held), attempts)
    for trigger in triggers_of(heldout.train, config.data) if heldout else [config.data.trigger or ""]:
        if base and parts and trigger:
            attempts(partial(_check_trigger, base, parts, trigger))
    attempts(lambda: check_class(config, dataset.samples if dataset else ()))
    attempts(lambda: check_token_captions(tokens, heldout.train, heldout.heldout, config.data) if heldout else None)
    attempts.done()
    assert base and parts and dataset and heldout and targets and precision and device and sizes and encoders is not None and trial
    return Checked(
        config=config,
        base=base,
        parts=parts,
        dataset=dataset,
        split=heldout,
        targets=targets[0],
        layers=targets[1],
        encoders=encoders,
        sizes=sizes,
        items=items,
        heldout_items=held,
        order=order,
        slider=slider,
        preference=preference,
        class_images=drawn,
        device=device,
        precision=precision,
        trial=trial,
        training=training,
        start=start,
        tokens=tokens,
    )


def _images(config: TrainConfig, slider: Slider | None, preference: Preference | None, report: Report) -> ImageSet:
    """What is learned from."""
    if preference is not None:
        return preference_set(config, report)
    return slider_dataset(config, slider, report) if slider else read_dataset(config, report)


def _split(config: TrainConfig, slider: Slider | None, preference: Preference | None, images: ImageSet, report: Report) -> TrainSplit:
    """What of it is held out."""
    if preference is not None:
        return preference_split(config, images, report)
    return slider_split(images) if slider else choose_split(config, images, report)


def _alone(config: TrainConfig, attempts: Attempts) -> tuple[Trial | None, torch.device | None, Precision | None]:
    """What needs neither base nor images: the optimizer's trial, the device and the precision."""
    attempts(lambda: check_loraplus(config))
    trial = attempts(lambda: try_optimizer(config)) if not attempts.faults else None
    if trial:
        attempts(lambda: check_average(config, trial))
        attempts(lambda: check_norms(config, trial))
    attempts(lambda: trackers_of(config.tracker))
    attempts(lambda: check_name(config.name))
    device = attempts(lambda: resolve_device(config.device))
    attempts(lambda: check_environment(device))
    if device:
        attempts(lambda: check_device(config, device))
        attempts(lambda: check_offload(config, device))
        attempts(lambda: check_device_computes(config, device))
        attempts(lambda: check_compiler(config, device))
    return trial, device, attempts(lambda: resolve_precision(config.precision, device)) if device else None


def _check_split(config: TrainConfig, split: TrainSplit, items: Sequence[Item], attempts: Attempts) -> None:
    """Views and masks, held-out images, captions, what is measured beside the held-out loss, and what a run may stop by."""
    attempts(lambda: refuse_file_as_folder(f"out={config.out}", expanded(config.out).absolute()))
    attempts(lambda: check_views(items))
    attempts(lambda: check_leaks(split))
    attempts(lambda: check_captioning(split.train, config.data))
    attempts(lambda: check_early_stop(config.heldout, len(split.heldout)))
    attempts(lambda: check_generic(config, triggers_of(split.train, config.data)))
    if config.data.flip is True:
        attempts(lambda: check_flip(split.train))


def _adapters(
    config: TrainConfig, base: Base, parts: Parts, targets: str | list[str], store: Store, attempts: Attempts
) -> tuple[TrainingAdapter | None, StartAdapter | None]:
    """The adapter that is fused while training, and the one that is continued."""
    training, start = None, None
    if fused := config.adapter.training:
        training = attempts(lambda: find_training_adapter(fused, base, parts, store))
    if begun := config.lora.start:
        start = attempts(lambda: find_start(begun, base, parts, file_ranks(base.family, parts, config, targets), store))
    return training, start


def check_class(config: TrainConfig, samples: Sequence[Sample]) -> None:
    """Refuse a class to keep, or regularisation images, that would hold or teach the trigger. Raises Faults with both."""
    attempts = Attempts()
    if samples:
        attempts(lambda: check_preserve(config, samples))
        attempts(lambda: check_captions(config.data, samples))
    attempts.done()


def in_steps(config: TrainConfig, order: Order) -> TrainConfig:
    """The settings with epochs as steps: the least number that shows each item so often."""
    if config.epochs is None:
        return config
    return replace(config, steps=order.steps_for(config.epochs), epochs=None)


def _contrast(config: TrainConfig, parts: Parts | None, *, is_slider: bool) -> None:
    """Refuse a contrast that has no meaning with the other settings."""
    check_contrast(
        config.objective.contrast,
        parts.prediction if parts else None,
        batch_size=config.batch_size,
        text_encoder=config.lora.text_encoder,
        slider=is_slider,
    )


def _objective(parts: Parts, config: TrainConfig, functions: Mapping[str, Choice]) -> None:
    """Refuse an objective that does not suit what the base predicts."""
    if config.objective.zero_terminal_snr:
        check_zero_terminal_snr(parts.prediction)
    if config.objective.name == "slider" and config.objective.noise != "normal":
        raise Refused(f"objective.noise={config.objective.noise}: a slider is trained on plain noise. Leave it out.")
    bound = functions_of(config.objective, functions)
    objective_of(parts.prediction, parts.scheduler_class, parts.scheduler_config, bound, shift=config.objective.shift)


def _targets(base: Base, parts: Parts, config: TrainConfig) -> tuple[str | list[str], list[str]]:
    _check_kind(config)
    _ = TARGETS[parts.prediction]
    if config.objective.shift is not None and parts.prediction != "flow":
        raise Refused(
            f"objective.shift={config.objective.shift:g}: {base.name} predicts {parts.prediction}; only flow models have a time shift."
        )
    if config.objective.guidance is not None and base.family.training_guidance is None:
        raise Refused(
            f"objective.guidance={config.objective.guidance:g}: {base.name} has no input for guidance, so that it is trained without."
            " Leave it out."
        )
    if not kind_of(config.lora).layers:
        return [], []
    targets = targets_of(base.family, config.lora.targets)
    layers = matched(parts.denoiser, targets)
    check_learns(parts.denoiser, layers, config.lora)
    return targets, layers


def _check_kind(config: TrainConfig) -> None:
    """Refuse options that the kind has not, and an alpha where none counts."""
    kind, lora = kind_of(config.lora), config.lora
    if not kind.alpha and (lora.alpha is not None or lora.alphas):
        raise Refused(f"lora.alpha: {kind.title} has no alpha with these options. Leave lora.alpha and lora.alphas out.")


def _check_patterns(base: Base, parts: Parts, config: TrainConfig, layers: list[str]) -> None:
    """Refuse patterns of ranks that act on no layer, and a text encoder's layers that could not learn."""
    names = list(layers)
    for name in learning_encoders(base.family, parts, config):
        encoder = parts.text_encoders[name]
        inside = matched(encoder, encoder_targets(base.family, name, encoder, clip_skip=config.clip_skip))
        check_learns(encoder, inside, config.lora)
        names += inside
    check_patterns(config.lora, names)


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


def _sizes(config: TrainConfig, base: Base, parts: Parts) -> Sizes:
    """The sizes that images may have. Raises Faults for resolutions that the model does not take."""
    sides = config.sides or (parts.resolution,)
    multiple, step, name = base.family.size_multiple, config.data.bucket_step, base.family.name
    faults = [
        f"resolution={side}: {name} needs multiples of {multiple} pixels, for example {max(multiple, round(side / multiple) * multiple)}."
        for side in sides
        if side % multiple
    ]
    if step is not None and step % multiple:
        faults.append(f"data.bucket_step={step}: {name} needs multiples of {multiple} pixels.")
    most = base.family.largest_side(parts)
    faults += [
        f"resolution={side}: this build of {name} has position embeddings for {most} pixels a side. Give at most that."
        for side in sides
        if most is not None and side > most
    ]
    if faults:
        raise Faults("These sizes are refused:", faults)
    return Sizes(
        sides=sides,
        multiple=multiple,
        step=step,
        buckets=config.data.buckets,
        most=most,
        crops=config.data.crops,
        flip=bool(config.data.flip),
    )
