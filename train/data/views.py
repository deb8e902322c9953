"""Which parts of an image are trained on: the centre, random crops (data.crops), and the mirror image of each (data.flip)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from registry.errors import Refused
from registry.printable import some
from train.data.captions import shortened
from train.data.dataset import Sample
from train.data.wording import MOST
from train.loop.rng import seed_of

SIDED = re.compile(
    r"\b(?:left|right|leftmost|rightmost|leftwards?|rightwards?|text|texts|letter|letters|lettering|writing|handwriting|written|word|words"
    r"|caption|logo|logos|signature|watermark|clockwise|asymmetrical)\b",
    re.IGNORECASE,
)


def corners_of(sample: Sample, room: tuple[int, int], crops: int) -> list[tuple[int, int]]:
    """(left, top) of an image's crops, `room` pixels free in width and height: the centre for one, else random ones that differ.

    They depend on the image's bytes alone. There are fewer where there is too little room, and one where there is none.
    """
    if crops == 1:
        return [(room[0] // 2, room[1] // 2)]
    number = min(crops, (room[0] + 1) * (room[1] + 1))
    found: dict[tuple[int, int], None] = {}
    place = 0
    while len(found) < number:
        corner = (_below(room[0] + 1, sample, "left", place), _below(room[1] + 1, sample, "top", place))
        found[corner] = None
        place += 1
    return list(found)


def _below(count: int, sample: Sample, *parts: object) -> int:
    return seed_of("crop", sample.sha256, *parts) % count


def check_flip(samples: Iterable[Sample]) -> None:
    """Refuse mirror images whose captions would be wrong. Raises Refused with the images' names and the words."""
    held = [(sample, found[0]) for sample in samples for text in sample.captions if (found := SIDED.search(text))]
    if not held:
        return
    named = list(dict.fromkeys(f"{sample.name} ({shortened(word, 20)})" for sample, word in held))
    raise Refused(
        f"data.flip=true: captions hold words that the mirror image makes wrong: {some(named, MOST)}."
        " Leave data.flip out, change these captions, or give data.flip=force."
    )


def flip_faults(samples: Sequence[Sample], flip: object) -> None:
    """check_flip where data.flip is true and not force."""
    if flip is True:
        check_flip(samples)
