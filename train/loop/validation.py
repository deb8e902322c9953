"""Held-out loss: images never trained on, each at the same timesteps with the same noise every time, compared with the base's loss.

Image, timestep and noise are fixed, so the difference to the base is paired and due to training alone. Its interval over
the images gives a verdict.
"""

# N held-out images, K points of each, C channels, H W latent size

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.loop.encode import Latents, Prompts, Texts
from train.loop.rng import seed_of
from train.loop.step import TrainState, mask_weights

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = 0.95
POINTS = (4, 16)  # fewest and most timesteps an image; in between as many as make 32 points in all


@dataclass(frozen=True)
class Difference:
    """Mean difference to the base over the images, and its interval; None where one image gives none."""

    mean: float
    low: float | None
    high: float | None
    comparisons: int = 1

    @property
    def verdict(self) -> str:
        """better, worse, or cannot tell."""
        if self.low is None or self.high is None or self.low <= 0.0 <= self.high:
            return "cannot tell"
        return "better" if self.high < 0.0 else "worse"

    def sentence(self, other: str = "the base") -> str:
        """The verdict with its numbers."""
        if self.low is None or self.high is None:
            return f"difference to {other} {self.mean:+.4f}; one image gives no interval: cannot tell"
        words = {"better": f"better than {other}", "worse": f"worse than {other}", "cannot tell": f"cannot tell it from {other}"}
        return f"{words[self.verdict]} ({self.numbers()})"

    def numbers(self) -> str:
        """The mean with its interval, where there is one."""
        if self.low is None or self.high is None:
            return f"difference {self.mean:+.4f}"
        over = f" over {self.comparisons} comparisons" if self.comparisons > 1 else ""
        return f"difference {self.mean:+.4f}, {CONFIDENCE:.0%} interval {self.low:+.4f} .. {self.high:+.4f}{over}"


def difference(adapted: Sequence[float], base: Sequence[float], *, comparisons: int = 1) -> Difference:
    """The paired difference adapted - base with its t interval over the images.

    `comparisons` above 1: the interval holds for that many differences at once (Bonferroni), as the best of several steps needs.
    """
    pairs = [a - b for a, b in zip(adapted, base, strict=True)]
    count, mean = len(pairs), math.fsum(pairs) / len(pairs)
    if count < 2:
        return Difference(mean, None, None, comparisons)
    from scipy.special import stdtrit  # the quantile of Student's t; importing scipy.stats takes a second

    deviation = math.sqrt(math.fsum((d - mean) ** 2 for d in pairs) / (count - 1))
    reach = float(stdtrit(count - 1, 1 - (1 - CONFIDENCE) / (2 * comparisons))) * deviation / math.sqrt(count)
    return Difference(mean, mean - reach, mean + reach, comparisons)


def points_of(images: int) -> int:
    """Timesteps an image, for so many held-out images."""
    return min(POINTS[1], max(POINTS[0], math.ceil(32 / images)))


@dataclass(kw_only=True)
class Probe:
    """The fixed points: every held-out image at K timesteps, each with its own noise.

    The timesteps are the middles of K equally probable parts of the distribution that the run trains with.
    """

    latents: Latents
    texts: Texts | Prompts
    sha256s: Sequence[str]
    names: Sequence[str]
    points: int  # timesteps an image

    @property
    def unit(self) -> str:
        """What has a loss."""
        return "images"

    def table(
        self,
        state: TrainState,
        *,
        model: Any,
        images: Sequence[int] | None = None,
        captions: Sequence[int] | None = None,
        points: Sequence[int] | None = None,
    ) -> Tensor:
        """The loss of each image at each of its points, (N, K) on the CPU; of these images and points alone where they are given.

        `captions`: for each image of the set the one whose caption it is measured with; None: its own.
        """
        import torch

        shapes, chosen = self.latents.shapes, range(len(self.sha256s)) if images is None else images
        of = range(len(self.sha256s)) if captions is None else captions
        wanted = range(self.points) if points is None else points
        pairs = [(image, point) for shape in dict.fromkeys(shapes) for image in chosen if shapes[image] == shape for point in wanted]
        width = state.config.images_a_pass
        table = torch.empty(len(self.sha256s), self.points, dtype=torch.float64)
        with state.evaluating(), torch.no_grad():
            for same in _of_one_size(pairs, shapes, width):
                rows, columns = zip(*same, strict=True)
                table[list(rows), list(columns)] = self._losses(state, model, same, of).double().cpu()
                if state.after_pass is not None:
                    state.after_pass()
        return table[list(chosen)][:, list(wanted)]

    def _losses(self, state: TrainState, model: Any, pairs: Sequence[tuple[int, int]], captions: Sequence[int]) -> Tensor:
        import torch

        images = [image for image, _ in pairs]
        objective = state.objective
        quantiles = torch.tensor([(point + 0.5) / self.points for _, point in pairs], dtype=torch.float64)
        rows = objective.rows(quantiles, self.latents.shapes[images[0]][1:])
        noise = torch.stack([self._noise(*pair) for pair in pairs])
        encoded, texts = self.latents.view(images), self.texts.rows([captions[image] for image in images])
        noisy, target = objective.noisy_and_target(encoded.posterior.mean, noise, rows)
        prediction = state.predict(model, noisy, objective.timesteps[rows], texts, encoded.crops)
        weights = mask_weights(state.config, encoded.kept)
        return objective.errors(prediction, target.to(state.device), None if weights is None else weights.to(state.device))

    def _noise(self, image: int, point: int) -> Tensor:
        """The same for this image and point in every run, whatever the run's seed: runs can be compared."""
        import torch

        generator = torch.Generator().manual_seed(seed_of("heldout noise", self.sha256s[image], point))
        return torch.randn(*self.latents.shapes[image], generator=generator)


def _of_one_size(pairs: Sequence[tuple[int, int]], shapes: Sequence[tuple[int, ...]], width: int) -> Iterator[Sequence[tuple[int, int]]]:
    """The pairs (image, point), ordered by size, in runs of one size and at most `width`."""
    for _, same in itertools.groupby(pairs, key=lambda pair: shapes[pair[0]]):
        every = list(same)
        yield from (every[begin : begin + width] for begin in range(0, len(every), width))
