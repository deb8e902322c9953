"""What a slider reaches, at fixed points: how far its predictions at weights +1 and -1 are apart along its direction.

Of pairs of images, which have no such direction: how much lower the loss of each end's images is at their own weight than at the other.
"""

# N points, C channels, H W latent size

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.printable import counted
from train.loop.batches import Batch
from train.loop.rng import seed_of
from train.loop.step import Pass, TrainState
from train.loop.validation import Difference, difference
from train.slider.run import SliderPass, SliderRun

if TYPE_CHECKING:
    from torch import Tensor

SHARES = (0.95, 0.75, 0.5, 0.25)  # of the timesteps that are left to do
DRAWINGS = 4  # that are measured at each share
POINTS = 16  # of pairs of images
LITTLE = 0.1  # a share of the asked guidance below which hardly anything is seen in images


@dataclass(frozen=True)
class Reach:
    """By point: how far the slider acts. `guidance`: what was asked of it along its direction; None: of pairs, in loss."""

    values: tuple[float, ...]
    guidance: float | None
    cosine: float | None = None  # mean cosine of what changes to the direction

    @property
    def interval(self) -> Difference:
        """The mean over the points with its interval."""
        return difference(self.values, [0.0] * len(self.values))

    def sentence(self) -> str:
        """The measure in words."""
        found = self.interval
        assert found.low is not None and found.high is not None
        what = "the slider acts" if found.low > 0 else "the slider acts the wrong way" if found.high < 0 else "the slider does not act"
        span = f"95% interval {found.low:.3g} .. {found.high:.3g} over {counted(len(self.values), 'point')}"
        if self.guidance is None:
            return f"{what}: the loss of each end's images is {found.mean:.3g} lower at their own weight than at the other ({span})"
        return (
            f"{what}: from the base to weight 1 its predictions move by {found.mean:.3g} of the asked {self.guidance:g} along its direction"
            f" ({span}; cosine {self.cosine:.2f})"
            + (". That is little: raise optim.lr or steps" if abs(found.mean) < LITTLE * self.guidance else "")
        )

    def to_json(self) -> dict[str, Any]:
        """`slider` of result.json."""
        found = self.interval
        reached = {"mean": found.mean, "low": found.low, "high": found.high}
        return {"guidance": self.guidance, "reached": reached, "cosine": self.cosine}


def measure(state: TrainState, run: SliderRun) -> Reach:
    """The reach. The modules must be in eval mode."""
    if run.pairs:
        return Reach(tuple(_gain(state, run, number) for number in range(max(POINTS, 2))), None)
    values, cosines = [], []
    for number in range(DRAWINGS * len(SHARES)):
        change, direction = _along(state, run, number)
        inner = (change * direction).sum()
        values.append(float(inner / direction.square().sum().clamp(min=1e-30)))
        cosines.append(float(inner / (change.norm() * direction.norm()).clamp(min=1e-30)))
    return Reach(tuple(values), run.slider.guidance, sum(cosines) / len(cosines))


def _along(state: TrainState, run: SliderRun, number: int) -> tuple[Tensor, Tensor]:
    """(half the difference of the predictions at +1 and -1, the base's direction) at a point that the base draws, fp32."""
    held = [number % max(1, len(run.slider.preserve))]
    seeds, share = [seed_of("slider measure", number // len(SHARES))], SHARES[number % len(SHARES)]
    made = run.walk(state, 0, Batch((0,), (0,)), seeds=seeds, shares=[share], signs=[0.0], held=held)
    _, positive, negative = run.predictions(state, made, held)
    ends = [_at(state, run, made, made.noisy, sign) for sign in (1.0, -1.0)]
    return (ends[0] - ends[1]) / 2, positive.float() - negative.float()


def _gain(state: TrainState, run: SliderRun, number: int) -> float:
    """How much lower the loss of a pair's images is with each at its own weight than at the other's."""
    made = run.make_pass(state, -1 - number, Batch((number % run.pairs,), (0,)), 1)
    assert isinstance(made, SliderPass)
    images = ((1.0, made.noisy, made.target), (-1.0, made.opposite_noisy, made.opposite_target))
    total = 0.0
    for sign, noisy, target in images:
        own, other = (state.objective.errors(_at(state, run, made, noisy, one), target.to(state.device)) for one in (sign, -sign))
        total += float((other - own).mean())
    return total / 2


def _at(state: TrainState, run: SliderRun, made: Pass, noisy: Tensor, factor: float) -> Tensor:
    """The prediction at this factor on the adapter, fp32."""
    import torch

    with torch.no_grad(), run.scale.at(factor):
        return state.predict(state.model, noisy, made.timesteps, made.text, made.crops).float()
