"""Rules of data.preferences: what it may be, and what a run that learns from votes cannot have beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from train.settings.rules import Rule

NAME = "dpo"
WHERE = "the folder of a grid that was voted on, a file of `loraloom vote GRID --export FILE.parquet`, or a list of them"


def places(given: Any) -> list[str]:
    """The folders and files of data.preferences."""
    return [given] if isinstance(given, str) else list(given or [])


def preference_rules(config: Any) -> Iterator[Rule]:
    """What data.preferences must be, and the other settings beside it."""
    given, learns = config.data.preferences, config.objective.name == NAME
    every = [given] if isinstance(given, str) else given if isinstance(given, (list, tuple)) else []
    good = given is None or (bool(every) and all(isinstance(one, str) and one.strip() for one in every))
    yield "data.preferences", given, good, f"must be {WHERE}"
    yield "data.preferences", given, given is None or learns, "needs objective.name=dpo, which alone learns from votes"
    if learns:
        yield "data.preferences", given, given is not None, f"is needed with objective.name=dpo: {WHERE}"
        yield from _beside(config)


def _beside(config: Any) -> Iterator[Rule]:
    data, objective = config.data, config.objective
    for name in ("path", "sets", "prior", "prior_images", "prior_prompt", "image_column", "caption_column"):
        must = "must be null with objective.name=dpo: the images are those that were voted on, and their prompts the captions"
        yield f"data.{name}", getattr(data, name), getattr(data, name) is None, must
    must = "must be none with objective.name=dpo: a vote is on the whole image, and on nothing behind a mask"
    yield "data.masks", data.masks, data.masks == "none", must
    must = "must be empty with objective.name=dpo: the reference is the model without what is trained, and it could not read a new token"
    yield "tokens.add", config.tokens.add, not config.tokens.add, must
    must = "must be null with objective.name=dpo: the reference holds what the votes do not ask for, by objective.params.dpo_beta"
    yield "objective.preserve_class", objective.preserve_class, objective.preserve_class is None, must
    must = "must be none with objective.name=dpo: the votes are the contrast"
    yield "objective.contrast", objective.contrast, objective.contrast == "none", must
    must = "must be mse with objective.name=dpo: the margin is a ratio of likelihoods, which the squared error alone gives"
    yield "objective.loss", objective.loss, objective.loss == "mse", must
    must = "must be normal with objective.name=dpo: its likelihoods are those of plain noise"
    yield "objective.noise", objective.noise, objective.noise == "normal", must
