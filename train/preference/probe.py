"""Held-out pairs at fixed noise and timesteps: their loss, the margin of each, and the preferred image's own error."""

# N pairs, K points of each

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from train.loop.encode import Latents
from train.loop.probes import Found, means
from train.loop.step import TrainState
from train.loop.validation import Probe
from train.objective.preference import Preference, margins, preference_losses
from train.preference.run import Reference

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class PairProbe(Probe):
    """The loss of pairs in place of images: -log sigmoid of the margin at each point, log 2 where the model is the reference."""

    rejected: Latents
    preference: Preference
    reference: Reference
    margins: Tensor | None = field(default=None, init=False)  # (N, K) of the last measurement
    preferred: Tensor | None = field(default=None, init=False)  # (N, K) errors of the preferred images
    _known: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict, init=False)  # the reference's errors

    @property
    def unit(self) -> str:
        return "pairs"

    def _losses(self, state: TrainState, model: Any, pairs: Sequence[tuple[int, int]], captions: Sequence[int]) -> Tensor:
        import torch

        images, objective = [image for image, _ in pairs], state.objective
        quantiles = torch.tensor([(point + 0.5) / self.points for _, point in pairs], dtype=torch.float64)
        rows = objective.rows(quantiles, self.latents.shapes[images[0]][1:])
        noise = torch.stack([self._noise(*pair) for pair in pairs])
        halves = [encoded.view(images) for encoded in (self.latents, self.rejected)]
        both = [objective.noisy_and_target(half.posterior.mean, noise, rows) for half in halves]
        noisy, target = (torch.cat(column) for column in zip(*both, strict=True))
        crops = None if halves[0].crops is None or halves[1].crops is None else torch.cat([halves[0].crops, halves[1].crops])
        text = self.texts.rows([captions[image] for image in images] * 2)
        target, times = target.to(state.device), objective.timesteps[rows].repeat(2)

        def errors() -> Tensor:
            return objective.errors(state.predict(model, noisy, times, text, crops), target).double().cpu()

        own = errors()
        if any(pair not in self._known for pair in pairs):
            with self.reference.active():
                found = errors().view(2, -1)
            self._known |= {pair: (float(found[0, place]), float(found[1, place])) for place, pair in enumerate(pairs)}
        reference = torch.tensor([self._known[pair] for pair in pairs], dtype=torch.float64).T.flatten()
        margin = objective.weights[rows].double() * margins(own, reference, beta=self.preference.beta)
        self._keep(pairs, margin, own.chunk(2)[0])
        return preference_losses(margin)

    def _keep(self, pairs: Sequence[tuple[int, int]], margin: Tensor, own: Tensor) -> None:
        import torch

        if self.margins is None or self.preferred is None:
            self.margins, self.preferred = (torch.zeros(len(self.sha256s), self.points, dtype=torch.float64) for _ in range(2))
        rows, columns = (list(numbers) for numbers in zip(*pairs, strict=True))
        self.margins[rows, columns], self.preferred[rows, columns] = margin, own


@dataclass(frozen=True)
class PairMeasure:
    """What is kept of the held-out pairs beside their loss, at each measurement."""

    pairs: PairProbe

    def measure(self, state: TrainState, *, model: Any, found: Found) -> dict[str, Any]:
        """{"margins": [...], "preferred": [...]}: of each pair the mean margin over its points, and the preferred image's mean error."""
        assert self.pairs.margins is not None and self.pairs.preferred is not None
        return {"margins": means(self.pairs.margins), "preferred": means(self.pairs.preferred)}
