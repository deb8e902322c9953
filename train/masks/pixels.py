"""An image as a segmenter's numbers, and its answer as a share of each pixel that is kept."""

# C classes, h w the model's size

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed, Refused
from registry.names import suggest

if TYPE_CHECKING:
    from PIL.Image import Image

BACKGROUND = ("background", "other", "unlabeled")
MOST = 30  # labels in a message


def probabilities(scores: Any) -> Any:
    """Scores (C, h, w) as shares in 0..1, (C, h, w): as they are where they are shares, else through sigmoid or softmax."""
    import numpy

    scores = numpy.asarray(scores, dtype=numpy.float64)
    if not numpy.isfinite(scores).all():
        raise JobFailed("The model's answer is not finite (NaN or infinity).")
    inside = scores.min() >= -1e-4 and scores.max() <= 1.0 + 1e-4
    if len(scores) == 1:
        return scores.clip(0.0, 1.0) if inside else 1.0 / (1.0 + numpy.exp(-scores.clip(-500, 500)))
    if inside and abs(scores.sum(0) - 1.0).max() < 1e-2:
        return scores.clip(0.0, 1.0)
    raised = numpy.exp(scores - scores.max(0, keepdims=True))
    return raised / raised.sum(0, keepdims=True)


def chosen(given: Sequence[str], names: Sequence[str]) -> list[int]:
    """The classes that a mask keeps: by name or number; without any, all but the background. Raises Refused, listing the classes."""
    if not given:
        if len(names) == 1:
            return [0]
        kept = [number for number, name in enumerate(names) if name.lower() not in BACKGROUND]
        if len(kept) < len(names):
            return kept
        raise Refused(f"The model has {len(names)} classes and none is the background: choose with --label. There are: {_listed(names)}.")
    numbers = []
    for label in given:
        if label in names:
            numbers += [number for number, name in enumerate(names) if name == label]
        elif label.isdecimal() and int(label) < len(names):
            numbers.append(int(label))
        else:
            raise Refused(f"--label {label}: the model has no such class. {suggest(label, names)} There are: {_listed(names)}.")
    return numbers


def _listed(names: Sequence[str]) -> str:
    rest = f", and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(f"{number} {name}" for number, name in enumerate(names[:MOST])) + rest


def as_mask(kept: Any, size: tuple[int, int], *, threshold: float | None, expand: int) -> Image:
    """Shares (h, w) as an L image of `size`: black or white at a threshold, grown by `expand` pixels on every side."""
    import numpy
    from PIL import Image, ImageFilter

    share = Image.fromarray(numpy.asarray(kept, dtype=numpy.float32)).resize(size, Image.Resampling.BILINEAR)
    values = numpy.asarray(share).clip(0.0, 1.0)
    if threshold is not None:
        values = (values >= threshold).astype(numpy.float32)
    mask = Image.fromarray((values * 255.0).round().astype(numpy.uint8))
    return mask.filter(ImageFilter.MaxFilter(2 * expand + 1)) if expand else mask
