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
from dataclasses import dataclass
from pathlib import Path
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
ADAPTED = 0.3  # share of the steps before which captions are not judged: the base hardly draws the set yet
COLUMNS = (1, 3)  # of the points at which some training images are measured each time


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

    def measure(self, state: TrainState, *, model: Any, found: Found) -> dict[str, Any]:
        """Mean losses: {"images": [...], "image_others": [...]}, the second empty where it is not measured."""
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
        others = self.images.table(state, model=model, captions=self.captions, points=points)
        return {"images": means(table), "image_others": means(others)}


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
