"""What a plan has of learning from votes: lines, notes, and the estimate of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from registry.printable import counted
from train.config import TrainConfig
from train.data.dataset import ImageSet
from train.objective.preference import Preference
from train.plan.estimate import Estimate, of_two_passes
from train.preference.dataset import PreferenceSet

FEW = 50  # pairs


def preference_rows(dataset: ImageSet) -> list[tuple[str, str]]:
    """A line on the votes."""
    return [("votes", dataset.tally.sentence())] if isinstance(dataset, PreferenceSet) else []


def preference_json(dataset: ImageSet) -> dict[str, Any] | None:
    """How votes became pairs; None for a run that does not learn from them."""
    return dataset.tally.to_json() if isinstance(dataset, PreferenceSet) else None


def loss_in_words(preference: Preference | None, config: TrainConfig) -> str:
    """The loss that is trained with."""
    weighting = f"weighting {config.objective.weighting}"
    if preference is None:
        return f"{config.objective.loss}, {weighting}"
    continued = config.lora.start is not None
    against = {"start": "the adapter as the run begins" if continued else "the base", "base": "the base without any adapter"}
    text = f"DPO against {against[preference.reference]}, beta {preference.beta:g} on mean squared errors"
    return f"{text}{f', SFT {preference.supervised:g}' if preference.supervised else ''}, {weighting}"


def preference_notes(preference: Preference | None, config: TrainConfig, dataset: ImageSet) -> Iterator[str]:
    """What is unusual of the votes and of the options."""
    if preference is None or not isinstance(dataset, PreferenceSet):
        return
    pairs = dataset.tally.pairs
    if pairs < FEW:
        yield (
            f"{counted(pairs, 'pair is', 'pairs are')} few: what they have in common by chance is learned "
            "too. 100 or more are usual; vote on more prompts"
        )
    if preference.reference == "base" and config.lora.start is None:
        yield "objective.params.reference=base: without lora.start the model begins as the base, so that start is the same"
    if preference.reference == "base" and config.lora.start is not None:
        yield (
            "objective.params.reference=base: the adapter that is continued is pulled back to the base too. start holds it to the model"
            " whose images were voted on"
        )


def of_pairs(traced: Estimate) -> Estimate:
    """The estimate with two images in place of one, and the reference's prediction of both."""
    seconds: Mapping[str, float] | None = traced.seconds and {
        **traced.seconds,
        "steps": traced.seconds["steps"] * 8 / 3,  # a backward pass is two forward ones
        "held-out loss": traced.seconds["held-out loss"] * 2,
    }
    return replace(of_two_passes(traced), seconds=seconds)
