"""Losses of a prediction against its target, element by element, in fp32 whatever the dtypes of the two."""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Where on the way from clean to noise the images of one pass are, each (B, 1, 1, 1) in fp32."""

    share: Tensor  # timestep / number of timesteps
    sigma: Tensor  # noise level / signal level; infinite without signal


LOSSES: OptionTable[Callable[..., Tensor]] = OptionTable("loss")
"""(prediction (B, C, H, W), target (B, C, H, W), moments, *, options) -> loss of each element (B, C, H, W)."""

Schedule = Literal["constant", "exponential", "snr"]
Scheduled = Annotated[Schedule, Meaning("how the width falls from 1 without noise to its value at full noise; constant: it does not")]
Delta = Annotated[float, Meaning("error at which the loss turns from quadratic to linear", 0.0, open_least=True)]
Beta = Annotated[float, Meaning("error below which the loss is quadratic", 0.0, open_least=True)]
Width = Annotated[float, Meaning("error around which the loss turns linear (kohya's huber_c)", 0.0, open_least=True)]


def error(prediction: Tensor, target: Tensor) -> Tensor:
    """prediction - target in fp32."""
    return prediction.float() - target.float()


def width(value: float, schedule: Schedule, moments: Moments | None) -> float | Tensor:
    """The width of a Huber-like loss at each image's timestep, as sd-scripts' huber_schedule has it (Khrapov et al. 2024, section 3.2).

    constant: value. exponential: value^share. snr: (1 - value) / (1 + sigma)^2 + value.
    """
    if schedule == "constant" or moments is None:
        return value
    if schedule == "exponential":
        powered: Tensor = value**moments.share
        return powered
    return (1 - value) / (1 + moments.sigma).square() + value


@LOSSES.add("mse")
def mse(prediction: Tensor, target: Tensor, moments: Moments | None = None) -> Tensor:
    """error^2 (Ho et al. 2020, eq. 14)."""
    return error(prediction, target).square()


@LOSSES.add("l1")
def l1(prediction: Tensor, target: Tensor, moments: Moments | None = None) -> Tensor:
    """|error|: all errors count in proportion."""
    return error(prediction, target).abs()


@LOSSES.add("huber")
def huber(
    prediction: Tensor, target: Tensor, moments: Moments | None = None, *, delta: Delta = 1.0, schedule: Scheduled = "constant"
) -> Tensor:
    """error^2 / 2 up to delta, delta (|error| - delta / 2) beyond (Huber 1964, eq. 2.3; torch.nn.HuberLoss)."""
    return _huber(prediction, target, width(delta, schedule, moments))


@LOSSES.add("smooth_l1")
def smooth_l1(
    prediction: Tensor, target: Tensor, moments: Moments | None = None, *, beta: Beta = 1.0, schedule: Scheduled = "constant"
) -> Tensor:
    """error^2 / (2 beta) below beta, |error| - beta / 2 beyond (Girshick 2015, eq. 3; torch.nn.SmoothL1Loss)."""
    turn = width(beta, schedule, moments)
    return _huber(prediction, target, turn) / turn


@LOSSES.add("pseudo_huber")
def pseudo_huber(
    prediction: Tensor, target: Tensor, moments: Moments | None = None, *, c: Width = 0.1, schedule: Scheduled = "constant"
) -> Tensor:
    """2 c (sqrt(error^2 + c^2) - c): smooth everywhere (Charbonnier et al. 1994; kohya's loss_type=huber)."""
    turn = width(c, schedule, moments)
    return 2 * turn * ((error(prediction, target).square() + turn * turn).sqrt() - turn)


@LOSSES.add("pseudo_smooth_l1")
def pseudo_smooth_l1(
    prediction: Tensor, target: Tensor, moments: Moments | None = None, *, c: Width = 0.1, schedule: Scheduled = "constant"
) -> Tensor:
    """2 (sqrt(error^2 + c^2) - c): pseudo_huber over c, near 2 |error| (Charbonnier et al. 1994; kohya's loss_type=smooth_l1)."""
    turn = width(c, schedule, moments)
    return pseudo_huber(prediction, target, moments, c=c, schedule=schedule) / turn


def _huber(prediction: Tensor, target: Tensor, turn: float | Tensor) -> Tensor:
    away = error(prediction, target).abs()
    near = away.clamp(max=turn)
    return near * (away - near / 2)
