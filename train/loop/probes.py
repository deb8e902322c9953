"""What a run is judged by at every held-out measurement: held-out images, some training images at the same points, other captions.

The held-out loss alone does not say why it is high. Beside it are measured its parts by timestep, the loss of training images (low where
they are memorised, high where the weights are wrecked), and the loss with another image's caption, which is higher than with
its own as far as the caption is used.
"""

# N images, K points of each

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from train.loop.step import TrainState
from train.loop.validation import Probe

if TYPE_CHECKING:
    from torch import Tensor

PROBED = 8  # training images, and held-out images that are measured with another caption too
PROBED_POINTS = 4  # of the points, at which these are measured
BANDS = ("little noise", "middle", "much noise")  # thirds of the distribution of timesteps


def probed(images: int) -> list[int]:
    """So many of the images, evenly over the set: all of a small one."""
    count = min(images, PROBED)
    return [place * images // count for place in range(count)]


def probed_points(points: int) -> list[int]:
    """The middles of equal parts of the points: all of four."""
    return [(2 * part + 1) * points // (2 * PROBED_POINTS) for part in range(PROBED_POINTS)]


def other_captions(prompts: Sequence[str]) -> list[int] | None:
    """For each image the next one, in a circle, with another prompt. None where all have the same."""
    if len(set(prompts)) < 2:
        return None
    count = len(prompts)
    return [next(place % count for place in range(own + 1, own + count) if prompts[place % count] != prompts[own]) for own in range(count)]


@dataclass(frozen=True)
class Found:
    """The losses of one measurement, for what is measured beside them."""

    heldout: Tensor  # (N, K)
    trained: Tensor  # (images, points), at `points` of the K alone
    points: list[int]
    others: bool = False  # whether the training images are measured with other captions too


class Beside(Protocol):
    """Something that is measured beside the held-out loss: more keys of the measurement."""

    def measure(self, state: TrainState, *, model: Any, found: Found) -> dict[str, Any]: ...


@dataclass(kw_only=True)
class Probes:
    """The held-out images, and training images in the same measure."""

    heldout: Probe
    trained: Probe
    captions: Sequence[int] | None  # for each held-out image the one whose caption is put in its place
    beside: Sequence[Beside] = ()  # each time
    seldom: Sequence[Beside] = ()  # with checkpoints
    image_names: Sequence[str] = ()  # of the training images whose losses are kept

    found: Found | None = field(default=None, init=False, repr=False)  # of the last measurement

    def measure(self, state: TrainState, *, model: Any) -> dict[str, Any]:
        """Mean losses: {"losses": [...], "bands": [3], "trained": [...], "others": [...], "own": [...]}, and what is measured beside them.

        Of each held-out image, by band, of each training image, of some held-out images with another caption and with their own; the last
        two are empty where all captions are one.
        """
        points = probed_points(self.heldout.points)
        table = self.heldout.table(state, model=model)  # (N, K)
        trained = self.trained.table(state, model=model, points=points)
        measured: dict[str, Any] = {"losses": means(table), "bands": _bands(table), "trained": means(trained), "others": [], "own": []}
        if self.captions is not None:
            chosen = probed(len(table))
            others = self.heldout.table(state, model=model, images=chosen, captions=self.captions, points=points)
            measured |= {"others": means(others), "own": means(table[chosen][:, points])}
        self.found = Found(table, trained, points)
        return measured | self._each(self.beside, state, model)

    def measure_seldom(self, state: TrainState, *, model: Any, others: bool) -> dict[str, Any]:
        """What is measured with checkpoints alone, right after `measure`; `others`: training images with other captions too."""
        assert self.found is not None
        self.found = replace(self.found, others=others)
        return self._each(self.seldom, state, model)

    def _each(self, measures: Sequence[Beside], state: TrainState, model: Any) -> dict[str, Any]:
        assert self.found is not None
        found: dict[str, Any] = {}
        for one in measures:
            found |= one.measure(state, model=model, found=self.found)
        return found


def means(table: Tensor) -> list[float]:
    """The mean of each row."""
    return [float(value) for value in table.mean(1)]


def _bands(table: Tensor) -> list[float]:
    """Mean loss of each third of the points, from little noise to much."""
    import torch

    return [float(part.mean()) for part in torch.tensor_split(table, len(BANDS), dim=1)]
