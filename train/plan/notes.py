"""Notes of a plan on settings that are allowed but probably not intended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry.detect.few_step import FoundFewStep
from registry.printable import counted
from train.config import ObjectiveConfig, TrainConfig
from train.data.captions import Count, read_part, syntax_notes, trigger_counts
from train.data.dataset import trigger_of, triggers_of
from train.data.split import TrainSplit
from train.loop.batches import Order
from train.lora import kind_of
from train.objective.slider import Slider
from train.output.kohya_metadata import LARGEST, tags_json

SMALL = 12  # images of a set that is divided in parts rather than halved


def settings_notes(config: TrainConfig, split: TrainSplit, order: Order, prompts: Sequence[str], count: Count) -> list[str]:
    """Notes on settings that are allowed but probably not intended; `count` counts the tokens of a prompt."""
    remarks = []
    together = config.images_per_step * order.processes
    if config.steps < order.epoch_steps:
        remarks.append(
            f"{counted(config.steps, 'step')} of {together} do not reach every one of the {counted(len(split.train), 'image')} once"
        )
    remarks += small_set_notes(config, split)
    captions = [sample.caption for sample in split.train if sample.caption]
    triggers = triggers_of(split.train, config.data)
    for trigger in triggers:
        own = [sample.caption for sample in split.train if sample.caption and trigger_of(sample, config.data) == trigger]
        remarks += trigger_notes(own, trigger, count) if own else []
    remarks += syntax_notes([read_part(prompt, count) for prompt in prompts])
    if not triggers and not captions:
        remarks.append("no captions")
    tags = tags_json([""] * len(prompts), prompts)
    if len(tags) > LARGEST:
        remarks.append(
            f"the captions' tags take {len(tags) >> 20} MiB, and at most {LARGEST >> 20} MiB go into an adapter's header:"
            " ss_tag_frequency is left out"
        )
    if config.alpha < config.lora.rank / 4 and not kind_of(config.lora).stabilised and kind_of(config.lora).alpha:
        remarks.append(f"lora.alpha / rank is {config.alpha / config.lora.rank:g}: the adapter is scaled down and learns more slowly")
    same = len(prompts) - len(set(prompts))
    if same and len(set(prompts)) == 1 and captions:
        remarks.append("every image has the same caption")
    return remarks


def few_step_notes(found: FoundFewStep | None, *, training: bool, tokens_alone: bool = False) -> Iterator[str]:
    """Training on a few-step build: what it costs, and what to train on instead. `training`: a training adapter is fused."""
    if found is None:
        return
    kind = found.kind
    yield (
        f"the base is {kind.title} ({found.evidence}), distilled to {counted(kind.steps, 'step')}; "
        f"previews are drawn with {counted(kind.steps, 'step')} at"
        f" guidance {kind.guidance:g} unless preview.steps and preview.guidance are given"
    )
    if not training and not tokens_alone:
        named = f", such as {kind.training_adapter}" if kind.training_adapter else ""
        yield (
            f"a LoRA that is trained on it as it is unlearns the few steps, and its images blur at {kind.steps}: train on {kind.instead}"
            f" and draw on this one, or give adapter.training=REF, a training adapter for it{named}. At the end a few-step test shows"
            " what is left"
        )


def objective_notes(objective: ObjectiveConfig, prediction: str) -> Iterator[str]:
    """Remarks on parts of the objective that are unusual for what the base predicts."""
    if prediction == "flow" and objective.weighting in ("min_snr", "p2", "debiased"):
        yield (
            f"objective.weighting={objective.weighting} is defined on a diffusion model's loss of the noise; on this flow model it"
            " is taken times (1 - sigma)^2, which leaves little of the loss at much noise. none, cosmap and bell are usual"
        )
    if objective.weighting == "sigma_sqrt":
        yield "objective.weighting=sigma_sqrt weights by 1 / sigma^2: a few draws with little noise make nearly all of the gradient"
    if "offset" in objective.noise and objective.zero_terminal_snr:
        yield "objective.noise=offset and objective.zero_terminal_snr have one purpose, dark and bright images; one of them is enough"
    if objective.zero_terminal_snr:
        yield (
            "objective.zero_terminal_snr: draw the adapter on a base whose scheduler has rescale_betas_zero_snr and trailing timesteps"
            " (ComfyUI: ModelSamplingDiscrete with v_prediction and zsnr); without these its images are too bright or too dark"
        )


def slider_notes(slider: Slider | None, config: TrainConfig) -> Iterator[str]:
    """How a slider is used, and what is unusual of its settings."""
    if slider is None:
        return
    yield "a slider is drawn at weights between -2 and 2 (grid: axes.weight=[-2,-1,0,1,2]); previews show -1, 0 and 1 side by side"
    if slider.by_text and not (slider.positive and slider.negative):
        empty = "negative" if slider.positive else "positive"
        yield f"objective.params.{empty} is empty: the other end is measured from what is drawn without a prompt"
    if slider.by_text and config.data.path is not None:
        yield "the captions are not used: the slider's own prompts are"


def contrast_notes(config: TrainConfig, *, distilled: bool) -> Iterator[str]:
    """What is unusual of objective.contrast. `distilled`: guidance is distilled into the base."""
    contrast = config.objective.contrast
    if contrast == "guidance" and not distilled:
        yield "objective.contrast=guidance is for bases with guidance distilled in; on this one it adds to the guidance of drawing"


def small_set_notes(config: TrainConfig, split: TrainSplit) -> list[str]:
    """How a set of a few images can be judged at all: one held-out image gives no interval."""
    images, held = len(split.train) + len(split.heldout), len(split.heldout)
    if images > SMALL or config.heldout.folds or held > 1 or config.heldout.path is not None:
        return []
    folds = min(3, images)
    now = (
        f"of {counted(images, 'image')} one is held out, which gives no interval"
        if held
        else f"none of {counted(images, 'image')} is held out"
    )
    sweep = f"loraloom train --multirun heldout.folds={folds} heldout.fold={','.join(map(str, range(folds)))}"
    return [f"{now}: {sweep} trains {folds} times and measures every image once, then train on all of them"] if images > 1 else []


def trigger_notes(captions: Sequence[str], trigger: str, count: Count | None) -> list[str]:
    """How many captions contain the trigger where the model reads it, and how many only behind its token limit."""
    read, late = trigger_counts(captions, trigger, count)
    notes = (
        [
            f"{read} of {counted(len(captions), 'caption')} {'contains' if read == 1 else 'contain'} "
            "the trigger already; it is not prepended to those"
        ]
        if read
        else []
    )
    if late:
        notes.append(
            f"{late} of {counted(len(captions), 'caption')} {'contains' if late == 1 else 'contain'} the trigger only behind the "
            "token limit, unread; it is prepended to those"
        )
    return notes
