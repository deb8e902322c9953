"""Training images that are unlike the others of their set: a caption that does not belong, a loss that does not fall.

Two reasons, by images.jsonl's numbers:

    caption   other images' captions fit it better than its own, when the base has adapted to the set and has not memorised it yet: measured
              at two points with one caption, and where that is suspicious again at eight with three
    loss      its loss, divided by its own with the base, is far above the others': it is of another kind, or damaged
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from registry.printable import some
from train.loop.history import History
from train.loop.validation import difference
from train.measures.images import FEWEST

FAR = 3.5  # deviations (1.4826 times the median distance to the median) beyond which a number is an outlier (Iglewicz & Hoaglin 1993)
SMALLEST = 0.1  # of the loss: a difference below it is none
MANY = 0.25  # of the images: as many are no outliers
LISTED = 5


@dataclass(frozen=True)
class Outlier:
    """An image, why, and the number by which: the loss with another caption less that with its own, or its loss over the base's."""

    image: str
    reason: str  # caption or loss
    value: float
    median: float  # of all images

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "reason": self.reason, "value": self.value, "median": self.median}


def outliers_of(history: History, names: Sequence[str]) -> list[Outlier]:
    """The outliers, those by their captions first, the clearest of each first. None in a set of a few images."""
    rows = [history.before, *sorted(history.heldout, key=lambda row: int(row["step"]))]
    rows = [row for row in rows if len(row.get("images", ())) == len(names)]
    if len(names) < FEWEST or not rows or rows[0] is not history.before:
        return []
    wrong = _captions(rows, names)
    known = {found.image for found in wrong}
    return wrong + [found for found in _losses(rows, names) if found.image not in known]


def _captions(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Outlier]:
    """Images that other captions fit better than their own, beyond chance, while captions help on the whole; the clearest first.

    Those that were suspected are judged, each by its interval over points, which holds for all of them at once, and by its size (swapped
    captions on ink: 25 and 33 % of the loss; clean ones on blob, whose captions differ little: 5 %). None where own captions are worse for
    many: then the captions of the set do not belong to its images.
    """
    found = []
    for row in rows[1:]:
        shares = [other - own for other, own in zip(row.get("image_others", ()), row["images"], strict=False)]
        if len(shares) != len(names) or difference([0.0] * len(names), shares).verdict != "better":
            continue
        if sum(share < 0 for share in shares) > MANY * len(names):
            continue
        for place, again in _measured_again(row):
            share = difference(again, [0.0] * len(again), comparisons=len(row["suspects"]))
            if share.verdict == "better" and -share.mean >= SMALLEST * row["images"][place]:  # other captions have the lower loss
                found.append(Outlier(names[place], "caption", share.mean, median(shares)))
    return sorted(found, key=lambda one: (one.value, one.image))


def _measured_again(row: Mapping[str, Any]) -> Iterator[tuple[int, Sequence[float]]]:
    """(place, its shares by point) of each suspect."""
    suspects, shares = row.get("suspects", ()), row.get("suspect_shares", ())
    points = len(shares) // max(1, len(suspects))
    for number, place in enumerate(suspects):
        yield int(place), shares[number * points : (number + 1) * points]


def _losses(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Outlier]:
    """Images whose loss stays far above the others', at the last measurement."""
    if len(rows) < 2:
        return []
    shares = [now / before if before > 0 else 1.0 for now, before in zip(rows[-1]["images"], rows[0]["images"], strict=True)]
    middle = median(shares)
    spread = 1.4826 * median(abs(share - middle) for share in shares)
    far = middle + max(FAR * spread, SMALLEST)
    found = [Outlier(name, "loss", share, middle) for name, share in zip(names, shares, strict=True) if share > far]
    return sorted(found, key=lambda one: (-one.value, one.image))


def sentences(found: Sequence[Outlier]) -> list[str]:
    """One for each reason, with the images."""
    wrong, far = ([one for one in found if one.reason == reason] for reason in ("caption", "loss"))
    lines = []
    if wrong:
        images = some([f"{one.image} ({one.value:+.4f})" for one in wrong], LISTED)
        lines.append(
            f"another image's caption fits better than their own: {images}; the median is {wrong[0].median:+.4f}. Look at these captions"
        )
    if far:
        images = some([f"{one.image} ({one.value:.0%})" for one in far], LISTED)
        lines.append(f"images whose loss stays high: {images} of the base's loss; the median is {far[0].median:.0%}. Look at them")
    return lines
