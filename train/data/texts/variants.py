"""The prompts that an image is trained with: one, or several variants where captions, tags or alternatives are drawn.

A variant is a function of (seed, the image's sha256, its number); the number of a step's variant one of (seed, step, place in the
step). So cached text states cover what is drawn, and a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from train.data.captions import Count, prompt_of
from train.data.dataset import Sample, trigger_of
from train.data.texts.tags import joined, movable, reads_tags, split_tags, varied
from train.data.texts.wildcards import has_choice, resolved
from train.loop.rng import drawn, seed_of
from train.settings.data import DataConfig


def plain_prompt(sample: Sample, config: DataConfig, count: Count | None = None) -> str:
    """The prompt without anything drawn: the first caption, the first alternatives, tags in their order."""
    text = sample.caption or ""
    if config.wildcards:
        text = resolved(text, lambda _count: 0)
    if reads_tags(config):
        text = joined(split_tags(text, config).every, config)
    return prompt_of(text, trigger_of(sample, config), count=count)


def is_drawn(sample: Sample, config: DataConfig) -> bool:
    """Whether the image's prompt may differ from step to step (beside an empty one)."""
    return len(sample.captions) > 1 or _changes(sample, config)


def prompts_of(sample: Sample, config: DataConfig, seed: int, count: Count | None = None) -> tuple[str, ...]:
    """The prompts that a step chooses from, all equally probable; an equal text counts as often as it was drawn.

    data.variants of them, less so many that each of several captions is used as often as the others.
    """
    if not is_drawn(sample, config):
        return (plain_prompt(sample, config, count),)
    captions = max(1, len(sample.captions))
    number = max(captions, config.variants - config.variants % captions)
    if captions > 1 and not _changes(sample, config):
        number = captions
    return tuple(variant(sample, config, seed, place, count=count) for place in range(number))


def prompts_of_all(
    samples: Sequence[Sample], plain: Sequence[str], config: DataConfig, seed: int, count: Count | None = None
) -> tuple[tuple[str, ...], ...]:
    """prompts_of each of the samples, whose plain prompts are known."""
    pairs = zip(samples, plain, strict=True)
    return tuple(prompts_of(sample, config, seed, count) if is_drawn(sample, config) else (prompt,) for sample, prompt in pairs)


def variant(sample: Sample, config: DataConfig, seed: int, *number: int, count: Count | None = None) -> str:
    """The variant of a number, or of (step, place): a caption, its alternatives, its tags shuffled and dropped."""
    random = Random(seed_of("variant", seed, sample.sha256, *number)).random  # the one method that gives the same in every Python
    captions = sample.captions or ("",)
    place = number[0] if len(number) == 1 else int(random() * len(captions))
    text = captions[place % len(captions)]
    if config.wildcards:
        text = resolved(text, lambda choices: int(random() * choices))
    trigger = trigger_of(sample, config)
    if reads_tags(config):
        text = joined(varied(split_tags(text, config), trigger, config, random), config)
    return prompt_of(text, trigger, count=count)


def chosen(prompts: Sequence[object], seed: int, step: int, place: int) -> int:
    """Which of an image's prompts is used at this place of the step."""
    return drawn(len(prompts), "prompt", seed, step, place) if len(prompts) > 1 else 0


def is_dropped(probability: float, seed: int, step: int, place: int) -> bool:
    """Whether the image at this place of the step gets the empty prompt (caption dropout)."""
    return probability > 0 and seed_of("caption dropout", seed, step, place) < probability * 2**63


def _changes(sample: Sample, config: DataConfig) -> bool:
    """Whether one caption alone makes different prompts."""
    if config.wildcards and any(map(has_choice, sample.captions)):
        return True
    if not config.shuffle_tags and not config.tag_dropout:
        return False
    free = [movable(split_tags(caption, config), trigger_of(sample, config)) for caption in sample.captions]
    return max(free, default=0) > (0 if config.tag_dropout else 1)
