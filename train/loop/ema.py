"""Exponential moving average (EMA) of the trained weights: what is measured, drawn and saved in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from train.settings.ema import EmaConfig


def decay_at(step: int, *, decay: float, power: float | None) -> float:
    """The decay of step 0, 1, ...: 0 in the first, then rising to `decay` as diffusers' EMAModel has it."""
    if step == 0:
        return 0.0
    return min(decay, (1 + step) / (10 + step) if power is None else 1.0 - (1.0 + step) ** -power)


@dataclass(frozen=True)
class Ema:
    """The averages of the weights, in fp32 beside them. Its decay follows from the step alone."""

    decay: float
    power: float | None
    averages: Sequence[Tensor]  # one a weight

    def update(self, weights: Sequence[Tensor], step: int) -> None:
        """Move each average towards its weight: average + (1 - decay) (weight - average). `step` counts from 0."""
        import torch

        share = 1.0 - decay_at(step, decay=self.decay, power=self.power)
        with torch.no_grad():
            for average, weight in zip(self.averages, weights, strict=True):
                average.lerp_(weight.detach(), share)

    def state(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The averages by the names of their weights, on the CPU."""
        return {name: average.cpu().clone() for name, average in zip(names, self.averages, strict=True)}

    def load(self, saved: Mapping[str, Tensor], names: Sequence[str]) -> None:
        """Put saved averages back. Raises KeyError for a weight without one."""
        for name, average in zip(names, self.averages, strict=True):
            average.copy_(saved[name])


def ema_of(config: EmaConfig, weights: Sequence[Tensor]) -> Ema | None:
    """The average of these weights from here on; None without a decay."""
    if config.decay is None:
        return None
    return Ema(config.decay, config.power, [weight.detach().clone() for weight in weights])
