"""What a run is judged by at every held-out measurement: held-out images, some training images at the same points, other captions.

The held-out loss alone does not say why it is high. Beside it are measured its parts by timestep, the loss of training images (low where
they are memorised, high where the weights are wrecked), and the loss with another image's caption, which is higher than with
its own as far as the caption is used.
"""

# N images, K points of each

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


@dataclass(kw_only=True)
class Probes:
    """The held-out images, and training images in the same measure."""

    heldout: Probe
    trained: Probe
    captions: Sequence[int] | None  # for each held-out image the one whose caption is put in its place

    def measure(self, state: TrainState, *, model: Any) -> dict[str, Any]:
        """Mean losses: {"losses": [...], "bands": [3], "trained": [...], "others": [...], "own": [...]}.

        Of each held-out image, by band, of each training image, of some held-out images with another caption and with their own; the last
        two are empty where all captions are one.
        """
        points = probed_points(self.heldout.points)
        table = self.heldout.table(state, model=model)  # (N, K)
        trained = self.trained.table(state, model=model, points=points)
        found = {"losses": _means(table), "bands": _bands(table), "trained": _means(trained)}
        if self.captions is None:
            return found | {"others": [], "own": []}
        chosen = probed(len(table))
        others = self.heldout.table(state, model=model, images=chosen, captions=self.captions, points=points)
        return found | {"others": _means(others), "own": _means(table[chosen][:, points])}


def _means(table: Tensor) -> list[float]:
    return [float(value) for value in table.mean(1)]


def _bands(table: Tensor) -> list[float]:
    """Mean loss of each third of the points, from little noise to much."""
    import torch

    return [float(part.mean()) for part in torch.tensor_split(table, len(BANDS), dim=1)]
