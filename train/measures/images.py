"""The loss of each training image over time, at the same points with the same noise, and with another image's caption.

images.jsonl of a run folder has a line for each image at each measurement, the base's at step 0 first:

    {"step": 200, "image": "cat.png", "loss": 0.4123, "other": 0.5310}

`loss` is with the image's own caption, `other` with another image's: the mean over the same timesteps with the same noise at every
step. `other` is null where it was not measured: it is in the first measurement after 0.3 of the steps, when the base has adapted to the
set and has not memorised it, and never where all captions are one. Two images' losses are no measure of each other: each is to be compared
with its own at step 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from registry.formats.atomic_file import write_text
from train.data.dataset import Sample
from train.loop.history import History
from train.loop.probes import Found, means, probed
from train.loop.step import TrainState
from train.loop.validation import Probe

FILE = "images.jsonl"
MOST = 64  # images that are measured: all of a set that has no more, else so many, evenly over the set
WITH_OTHERS = 1  # measurements with other captions
FEWEST = 8  # images of a set in which one can be unlike the others
ADAPTED = 0.3  # share of the steps before which captions are not judged: the base hardly draws the set yet
COLUMNS = (1, 3)  # of the points at which some training images are measured each time
SUSPECTS = 4  # images that another caption fits best beside their own: these are measured again
HALF = 0.5  # of the median share: an own caption that is worth more than this is not suspected
GRID = 12  # timesteps of the points at which suspects are measured
FINE = range(4, 12)  # those points: middle and much noise, where captions change the loss: on ink 20 times as much as with little
CAPTIONS = 3  # other captions that suspects are measured with: other suspects' first, since captions may be swapped


def measured_images(samples: Sequence[Sample]) -> list[int]:
    """Places of the training images that are measured; regularisation images are not."""
    own = [place for place, sample in enumerate(samples) if not sample.prior]
    return own if len(own) <= MOST else [own[number * len(own) // MOST] for number in range(MOST)]


def probed_images(samples: Sequence[Sample]) -> list[int]:
    """Places of the training images that are measured each time beside the held-out ones; all of them are among `measured_images`."""
    own = [place for place, sample in enumerate(samples) if not sample.prior]
    return [own[place] for place in probed(len(own))]


def unmeasured(samples: Sequence[Sample]) -> int:
    """How many of these images are not measured each time beside the held-out ones."""
    return len(set(measured_images(samples)) - set(probed_images(samples)))


@dataclass(frozen=True)
class ImageProbe:
    """The training images that are measured, with their own captions and another's."""

    images: Probe
    captions: Sequence[int] | None  # for each image the one whose caption is put in its place
    known: Sequence[tuple[int, int]]  # (place here, row of `Found.trained`) of images that are measured already
    prompts: Sequence[str] = ()  # of the images

    def measure(self, state: TrainState, *, model: Any, found: Found) -> dict[str, Any]:
        """Mean losses: {"images": [...], "image_others": [...]}, the second empty where it is not measured; with it the suspects.

        "suspects": places of images. "suspect_shares": of each in turn, at each of the points FINE, the mean loss with other captions less
        that with its own.
        """
        import torch

        points = [found.points[column] for column in COLUMNS]
        count, known = len(self.images.sha256s), dict(self.known)
        table = torch.empty(count, len(points), dtype=torch.float64)
        rest = [place for place in range(count) if place not in known]
        for place, row in known.items():
            table[place] = found.trained[row, list(COLUMNS)]
        if rest:
            table[rest] = self.images.table(state, model=model, images=rest, points=points)
        if self.captions is None or not found.others:
            return {"images": means(table), "image_others": []}
        others = means(self.images.table(state, model=model, captions=self.captions, points=points))
        own = means(table)
        chosen = suspects_of([other - one for other, one in zip(others, own, strict=True)])
        return {"images": own, "image_others": others, "suspects": chosen, "suspect_shares": self._shares(chosen, state, model)}

    def _shares(self, suspects: Sequence[int], state: TrainState, model: Any) -> list[float]:
        """The shares of suspects' captions, (suspects, FINE) in a row."""
        import torch

        if not suspects:
            return []
        fine, count = replace(self.images, points=GRID), len(self.images.sha256s)
        own = fine.table(state, model=model, images=suspects, points=FINE)  # (S, FINE)
        others = torch.zeros_like(own)
        for turn in range(CAPTIONS):
            captions = list(range(count))
            for image in suspects:
                captions[image] = self._other_captions(image, suspects)[turn]
            others += fine.table(state, model=model, images=suspects, captions=captions, points=FINE) / CAPTIONS
        return [float(share) for share in (others - own).flatten()]

    def _other_captions(self, image: int, suspects: Sequence[int]) -> list[int]:
        """CAPTIONS images whose captions are put in the place of an image's own: those of other suspects, then of the images behind it."""
        assert self.captions is not None
        count = len(self.images.sha256s)
        order = [*suspects, *(place % count for place in range(self.captions[image], image + count))]
        found = [place for place in dict.fromkeys(order) if self.prompts[place] != self.prompts[image]]
        return [found[turn % len(found)] for turn in range(CAPTIONS)]


def suspects_of(shares: Sequence[float]) -> list[int]:
    """Places of the images whose captions are worth least, by the loss with another caption less that with their own; the least first."""
    middle = median(shares)
    chosen = sorted((share, place) for place, share in enumerate(shares) if share < HALF * middle)
    return [place for _, place in chosen[:SUSPECTS]] if len(shares) >= FEWEST and middle > 0 else []


def others_due(history: History, step: int, steps: int) -> bool:
    """Whether the measurement after `step` of `steps` is with other captions too."""
    return step >= ADAPTED * steps and sum(bool(row.get("image_others")) for row in history.heldout) < WITH_OTHERS


def image_rows(history: History, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The lines of images.jsonl."""
    for row in ({"step": 0, **history.before}, *sorted(history.heldout, key=lambda row: int(row["step"]))):
        others = row.get("image_others") or [None] * len(names)
        for name, loss, other in zip(names, row.get("images", ()), others, strict=False):
            yield {"step": row["step"], "image": name, "loss": loss, "other": other}


def write_images(folder: Path, history: History, names: Sequence[str]) -> None:
    """Write images.jsonl anew from all that was measured: a resume writes the same."""
    write_text(folder / FILE, "".join(json.dumps(row) + "\n" for row in image_rows(history, names)))
