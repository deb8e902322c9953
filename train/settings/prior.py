"""The ranges of the settings of regularisation images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Protocol

from train.settings.rules import Rule, texts

MOST = 10_000  # images that the base draws


class Prior(Protocol):
    """The settings of data that are read here."""

    prior: str | None
    prior_prompt: str | None
    prior_images: int | None
    prior_weight: float
    sets: Any
    wildcards: bool


def prior_rules(data: Prior) -> Iterator[Rule]:
    """The rules of data.prior, data.prior_prompt, data.prior_images and data.prior_weight."""
    yield from texts(data, "prior", "prior_prompt")
    count = data.prior_images
    yield "prior_images", count, count is None or 1 <= count <= MOST, f"must be 1 to {MOST}, or null for none"
    alone = count is None or data.prior is None
    yield "prior_images", count, alone, "must be null beside data.prior: the class images are read from the folder, or drawn by the base"
    named = count is None or data.prior_prompt is not None
    yield "prior_images", count, named, "needs data.prior_prompt, what the base is to draw, such as a photo of a woman"
    used = data.prior_prompt is None or data.prior is not None or count is not None
    yield (
        "prior_prompt",
        data.prior_prompt,
        used,
        "needs data.prior, a folder of class images, or data.prior_images, a number to draw",
    )
    plain = count is None or not data.wildcards or not set("{}") & set(data.prior_prompt or "")
    yield "prior_prompt", data.prior_prompt, plain, "must have no { or } beside data.wildcards: all images are drawn by the one prompt"
    good = isfinite(data.prior_weight) and data.prior_weight > 0
    yield "prior_weight", data.prior_weight, good, "must be above 0"
    some = data.prior is not None or count is not None or _has_prior(data.sets)
    must = "needs regularisation images: data.prior, data.prior_images, or a set with prior: true"
    yield "prior_weight", data.prior_weight, some or data.prior_weight == 1.0, must


def _has_prior(sets: object) -> bool:
    entries = sets if isinstance(sets, (list, tuple)) else ()
    return any(isinstance(entry, Mapping) and entry.get("prior") is True for entry in entries)
