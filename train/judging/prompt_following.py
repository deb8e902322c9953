"""How far images follow their own prompts, by a model with an image and a text side (CLIP, SigLIP).

The cosine of an image with its own prompt, minus the mean of its cosines with the other prompts: what all prompts of a set have in
common, a trigger or a style, cancels. 0: the images do not depend on the prompt. The cosine alone is CLIP-T (Hessel et al. 2021, without
the factor 2.5).
"""

# P prompts, S seeds, D numbers of a vector

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infer.score.intervals import Interval, Resamples
from infer.score.models.embedder import Definition


@dataclass(frozen=True, kw_only=True)
class Following:
    """Of one checkpoint, or of the base at step 0. `to_base`: the difference at the same prompts and seeds, below 0 follows less."""

    step: int
    cosine: float  # with the own prompt, alone
    value: Interval
    to_base: Interval | None  # None: this is the base

    def to_json(self) -> dict[str, Any]:
        other = None if self.to_base is None else self.to_base.to_json()
        return {"step": self.step, "cosine": self.cosine, "value": self.value.to_json(), "to_base": other}


@dataclass(frozen=True, kw_only=True)
class PromptFollowing:
    """The base and every checkpoint, on held-out prompts and on generic ones."""

    model: Definition
    heldout: tuple[Following, ...]
    generic: tuple[Following, ...]  # empty with fewer than two generic prompts

    def to_json(self) -> dict[str, Any]:
        parts = {"heldout": self.heldout, "generic": self.generic}
        return {"model": self.model.to_json(), **{name: [row.to_json() for row in rows] for name, rows in parts.items()}}


def following(images: Mapping[int, Any], texts: Any, resamples: Resamples) -> tuple[Following, ...]:
    """Of vectors (P, S, D) by step, 0 the base's, and those of their prompts (P, D), all of length 1; two prompts or more."""
    import numpy

    count = len(texts)
    cosines = {step: found @ texts.T for step, found in sorted(images.items())}  # (P, S, P)
    own = {step: numpy.einsum("psp->ps", found) for step, found in cosines.items()}
    value = {step: own[step] - (found.sum(-1) - own[step]) / (count - 1) for step, found in cosines.items()}
    comparisons = max(1, len(cosines) - 1)
    return tuple(
        Following(
            step=step,
            cosine=float(own[step].mean()),
            value=resamples.interval(value[step], comparisons=comparisons),
            to_base=resamples.interval(value[step] - value[0], comparisons=comparisons) if step else None,
        )
        for step in value
    )
