"""The images of each checkpoint in numbers: style, drift, copies; each against the bare base at the same prompts and seeds.

- style: how near the images of the held-out prompts are to the held-out images, as train/output/style.py measures it
- drift: how far the images of generic prompts are from the base's, as a share of the way to another seed's image
- copies: how near the images of the held-out prompts are to a training image, beside the base's own and the held-out images themselves
- content: the held-out loss, which the run measured
"""

# P prompts, S seeds, M measures of style

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer.score.intervals import Resamples
from registry.images.image_hash import BITS, Copies
from train.judging.rows import ImageTable, Row
from train.output.style import SMALLEST, measures

if TYPE_CHECKING:
    from PIL.Image import Image

Drawn = Sequence[Sequence["Image"]]  # (P, S)


@dataclass(frozen=True, kw_only=True)
class Images:
    """What is compared: images by step (0: the base) of held-out and of generic prompts, each (P, S), and those of the run's set."""

    own: Mapping[int, Drawn]
    generic: Mapping[int, Drawn]
    heldout: Sequence[Image]
    trained: Sequence[Image]
    losses: Mapping[int, float]  # held-out loss by step, 0: the base's
    seed: int = 0  # of the bootstrap


def table_of(images: Images) -> ImageTable:
    """The table of all steps."""
    import numpy

    steps = sorted(step for step in images.own if step)
    resamples = _resamples(images.own[0], images.seed)
    centre, spread = _centre(images.heldout)
    styles = {step: numpy.array([[measures(image) for image in row] for row in rows]) for step, rows in images.own.items()}  # (P, S, M)
    copies = Copies(images.trained)
    nears = {step: _nearest(copies, rows) for step, rows in images.own.items()}  # (P, S) bits
    known = [found.bits for image in images.heldout if (found := copies.nearest(image))]
    drifts = _drifts(images)
    count = len(steps)

    def style(rows: Any) -> Any:
        return (numpy.abs(rows.mean((-3, -2)) - centre) / spread).mean(-1)

    def style_to_base(rows: Any) -> Any:
        half = rows.shape[-1] // 2
        return style(rows[..., :half]) - style(rows[..., half:])

    rows = []
    for step in steps:
        near = resamples.interval(nears[step] - nears[0], comparisons=count)
        own = resamples.interval(nears[step], comparisons=count)
        copying = near.side == "below" and own.high is not None and bool(known) and own.high < float(numpy.mean(known))
        rows.append(
            Row(
                step=step,
                style_distance=float(style(styles[step])),
                style=resamples.interval(numpy.concatenate([styles[step], styles[0]], -1), style_to_base, comparisons=count),
                drift=None if drifts is None else _resamples(images.generic[0], images.seed).interval(drifts[step], comparisons=count),
                near_bits=float(nears[step].mean()),
                near=near,
                copies=int((nears[step] < min(*known, nears[0].min())).sum()) if known else 0,
                copying=copying,
                loss=images.losses.get(step),
            )
        )
    return ImageTable(
        rows=tuple(rows),
        images=int(nears[0].size),
        base_style=float(style(styles[0])),
        base_near=float(nears[0].mean()),
        heldout_near=float(numpy.mean(known)) if known else None,
        base_loss=images.losses.get(0),
    )


def _resamples(rows: Drawn, seed: int) -> Resamples:
    return Resamples(len(rows), len(rows[0]), seed=seed)


def _centre(heldout: Sequence[Image]) -> tuple[Any, Any]:
    """Mean and deviation of the held-out images' measures."""
    import numpy

    table = numpy.array([measures(image) for image in heldout])  # (N, M)
    return table.mean(0), numpy.maximum(table.std(0, ddof=1), SMALLEST)


def _nearest(copies: Copies, rows: Drawn) -> Any:
    """(P, S) bits from each image to its nearest training image; all of them where there is none."""
    import numpy

    def bits(image: Image) -> int:
        found = copies.nearest(image)
        return BITS if found is None else found.bits

    return numpy.array([[bits(image) for image in row] for row in rows], dtype=numpy.float64)


def _drifts(images: Images) -> dict[int, Any] | None:
    """(P, S) by step: the mean difference to the base's image of the same seed, over that between the base's own images of two seeds."""
    import numpy

    base = images.generic.get(0)
    if not base or len(base[0]) < 2:
        return None
    pixels = {step: _pixels(rows) for step, rows in images.generic.items()}  # (P, S, h, w, 3)
    others = numpy.roll(pixels[0], 1, axis=1)
    scale = numpy.abs(pixels[0] - others).mean((1, 2, 3, 4), keepdims=True)[..., 0, 0, 0]  # (P, 1)
    scale = numpy.maximum(scale, 1.0)  # of 255: prompts whose images do not differ by seed
    return {step: numpy.abs(found - pixels[0]).mean((2, 3, 4)) / scale for step, found in pixels.items()}


def _pixels(rows: Drawn) -> Any:
    import numpy

    return numpy.array([[numpy.asarray(image.convert("RGB"), dtype=numpy.float32) for image in row] for row in rows])
