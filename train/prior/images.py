"""Regularisation images among the training images: their captions checked, both kinds equally often in an epoch.

Training on images of the class beside those of the subject keeps the class as it was (prior preservation, Ruiz et al. 2023, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from registry.errors import Refused
from registry.printable import some
from train.config import DataConfig
from train.data.captions import has_trigger, shortened
from train.data.dataset import ImageSet, Sample, triggers_of
from train.data.split import TrainSplit
from train.data.subsets import PRIOR
from train.data.wording import MOST
from train.prior.drawn import DrawnImages


def is_counted(sample: Sample) -> bool:
    """Whether it is of data.prior or drawn, so that its repeats are counted here; a set of data.sets has its own."""
    return sample.set == PRIOR or sample.set.startswith(f"{PRIOR}/")


def balanced(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The images with the repeats that make the class images of data.prior about as many in an epoch as the others.

    The kind that has fewer is repeated, by a whole number; diffusers and sd-scripts show as many of each kind too.
    """
    own = sum(sample.repeats for sample in samples if not is_counted(sample))
    prior = sum(sample.repeats for sample in samples if is_counted(sample))
    if not own or not prior:
        return tuple(samples)
    more, times = prior >= own, round(max(own, prior) / min(own, prior))
    return tuple(sample if is_counted(sample) is more else replace(sample, repeats=sample.repeats * times) for sample in samples)


def with_class_images(
    dataset: ImageSet | None, split: TrainSplit | None, drawn: DrawnImages | None
) -> tuple[ImageSet | None, TrainSplit | None]:
    """The set and its split with the images that the base draws, in balance; without a set as they are."""
    if dataset is None or split is None:
        return dataset, split
    found = () if drawn is None else drawn.samples()
    return replace(dataset, samples=(*dataset.samples, *found)), replace(split, train=balanced((*split.train, *found)))


def check_captions(data: DataConfig, samples: Sequence[Sample]) -> None:
    """Raise Refused for regularisation images whose caption has a trigger: they would teach that it is the class."""
    triggers = triggers_of([sample for sample in samples if not sample.prior], data)
    for trigger in triggers:
        what = f"has the trigger {trigger!r}, which would be learned as the class. Take the word out of it."
        if data.prior_prompt and has_trigger(data.prior_prompt, trigger):
            raise Refused(f"data.prior_prompt={shortened(data.prior_prompt)!r} {what}")
        names = [sample.name for sample in samples if sample.prior and _has(sample, trigger)]
        if names:
            raise Refused(f"{some(names, MOST)}: the caption of a regularisation image {what}")


def _has(sample: Sample, trigger: str) -> bool:
    return any(has_trigger(text, trigger) for text in (*sample.captions, sample.trigger or ""))
