"""How like the held-out and the training images a checkpoint's images are, by an embedding model: cosines, beside the base's.

- matching: to the held-out images of the image's own prompt, their mean
- heldout: to all held-out images, their mean; beside it what held-out images have among themselves
- nearest: to the nearest training image; a checkpoint copies where it is nearer than the base, and than held-out images are, beyond chance
"""

# P prompts, S seeds, N held-out images, M training images, D numbers of a vector

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer.score.intervals import Interval, Resamples
from infer.score.models.embedder import Definition, Embedder
from registry.progress import Report, silent

if TYPE_CHECKING:
    from PIL.Image import Image

MEASURES = ("matching", "heldout", "nearest")
Drawn = Sequence[Sequence["Image"]]  # (P, S)


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Of one checkpoint. `..._to_base`: the difference to the base at the same prompts and seeds, above 0 is nearer."""

    step: int
    matching: Interval
    matching_to_base: Interval
    heldout: Interval
    heldout_to_base: Interval
    nearest: Interval | None  # None without training images
    nearest_to_base: Interval | None
    copies: int  # images that are nearer to a training image than any held-out image and any of the base's images is
    copying: bool

    def to_json(self) -> dict[str, Any]:
        spans = {f"{name}{end}": getattr(self, f"{name}{end}") for name in MEASURES for end in ("", "_to_base")}
        values = {name: None if span is None else span.to_json() for name, span in spans.items()}
        return {"step": self.step, **values, "copies": self.copies, "copying": self.copying}


@dataclass(frozen=True, kw_only=True)
class Likenesses:
    """Every checkpoint by one model, and what they are held against."""

    model: Definition
    base: Mapping[str, float | None]  # matching, heldout, nearest: means of the base's images
    among_heldout: float  # mean cosine of two held-out images
    heldout_nearest: float | None  # mean cosine of a held-out image to its nearest training image
    rows: tuple[Likeness, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model.to_json(),
            "base": dict(self.base),
            "among_heldout": self.among_heldout,
            "heldout_nearest": self.heldout_nearest,
            "checkpoints": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Unit vectors of a judgement's images by one model."""

    own: Mapping[int, Any]  # step (0: the base) -> (P, S, D)
    heldout: Any  # (N, D)
    trained: Any  # (M, D)


def vectors_of(
    model: Embedder, own: Mapping[int, Drawn], heldout: Sequence[Image], trained: Sequence[Image], *, report: Report = silent
) -> Vectors:
    """The vectors of drawn images by step, of held-out and of training images."""
    stage = f"embed with {model.definition.title}"
    flat = [image for rows in own.values() for row in rows for image in row]
    every = model.images([*flat, *heldout, *trained], report=report, stage=stage)
    drawn, rest = every[: len(flat)], every[len(flat) :]
    prompts, seeds = len(own[0]), len(own[0][0])
    table = drawn.reshape(len(own), prompts, seeds, -1)
    return Vectors(own=dict(zip(own, table, strict=True)), heldout=rest[: len(heldout)], trained=rest[len(heldout) :])


def likenesses(
    model: Definition, vectors: Vectors, *, prompts: Sequence[str], heldout_prompts: Sequence[str], resamples: Resamples
) -> Likenesses:
    """The table of all steps. Every prompt is one of `heldout_prompts`, the held-out images' own."""
    import numpy

    own = numpy.array([[text == prompt for text in heldout_prompts] for prompt in prompts], dtype=numpy.float64)  # (P, N)
    own /= own.sum(1, keepdims=True)
    cosines = {step: found @ vectors.heldout.T for step, found in vectors.own.items()}  # (P, S, N)
    matching = {step: numpy.einsum("psn,pn->ps", found, own) for step, found in cosines.items()}
    heldout = {step: found.mean(-1) for step, found in cosines.items()}
    nearest = {step: (found @ vectors.trained.T).max(-1) for step, found in vectors.own.items()} if len(vectors.trained) else None
    known = (vectors.heldout @ vectors.trained.T).max(-1) if nearest is not None else None  # (N,)
    steps = sorted(step for step in vectors.own if step)

    def both(values: Mapping[int, Any], step: int) -> tuple[Interval, Interval]:
        count = len(steps)
        return resamples.interval(values[step], comparisons=count), resamples.interval(values[step] - values[0], comparisons=count)

    rows = []
    for step in steps:
        near, near_to_base = both(nearest, step) if nearest is not None else (None, None)
        copies = int((nearest[step] > max(known.max(), nearest[0].max())).sum()) if nearest is not None and known is not None else 0
        rows.append(
            Likeness(
                step=step,
                **dict(zip(("matching", "matching_to_base"), both(matching, step), strict=True)),
                **dict(zip(("heldout", "heldout_to_base"), both(heldout, step), strict=True)),
                nearest=near,
                nearest_to_base=near_to_base,
                copies=copies,
                copying=_is_copying(near, near_to_base, known),
            )
        )
    base = {"matching": float(matching[0].mean()), "heldout": float(heldout[0].mean()), "nearest": _mean(nearest[0] if nearest else None)}
    return Likenesses(model=model, base=base, among_heldout=_among(vectors.heldout), heldout_nearest=_mean(known), rows=tuple(rows))


def _is_copying(near: Interval | None, to_base: Interval | None, known: Any) -> bool:
    """Whether images are nearer to training images than the base's, and than held-out images are, both beyond chance."""
    if near is None or to_base is None or near.low is None:
        return False
    return to_base.side == "above" and near.low > float(known.mean())


def _among(heldout: Any) -> float:
    """Mean cosine of two different held-out images."""
    count = len(heldout)
    return float(((heldout @ heldout.T).sum() - count) / (count * (count - 1)))


def _mean(values: Any) -> float | None:
    return None if values is None else float(values.mean())
