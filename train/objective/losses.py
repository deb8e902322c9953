"""Losses of a prediction against its target, element by element, in fp32 whatever the dtypes of the two."""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Tensor

LOSSES: OptionTable[Callable[..., Tensor]] = OptionTable("loss")
"""(prediction (B, C, H, W), target (B, C, H, W), *, options) -> loss of each element (B, C, H, W)."""

Delta = Annotated[float, Meaning("error at which the loss turns from quadratic to linear", 0.0, open_least=True)]
Beta = Annotated[float, Meaning("error below which the loss is quadratic", 0.0, open_least=True)]
Width = Annotated[float, Meaning("error around which the loss turns linear (kohya's huber_c)", 0.0, open_least=True)]


def error(prediction: Tensor, target: Tensor) -> Tensor:
    """prediction - target in fp32."""
    return prediction.float() - target.float()


@LOSSES.add("mse")
def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """error^2 (Ho et al. 2020, eq. 14)."""
    return error(prediction, target).square()


@LOSSES.add("l1")
def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """|error|: all errors count in proportion."""
    return error(prediction, target).abs()


@LOSSES.add("huber")
def huber(prediction: Tensor, target: Tensor, *, delta: Delta = 1.0) -> Tensor:
    """error^2 / 2 up to delta, delta (|error| - delta / 2) beyond (Huber 1964, eq. 2.3; torch.nn.HuberLoss)."""
    away = error(prediction, target).abs()
    near = away.clamp(max=delta)
    return near * (away - near / 2)


@LOSSES.add("smooth_l1")
def smooth_l1(prediction: Tensor, target: Tensor, *, beta: Beta = 1.0) -> Tensor:
    """error^2 / (2 beta) below beta, |error| - beta / 2 beyond (Girshick 2015, eq. 3; torch.nn.SmoothL1Loss)."""
    return huber(prediction, target, delta=beta) / beta


@LOSSES.add("pseudo_huber")
def pseudo_huber(prediction: Tensor, target: Tensor, *, c: Width = 0.1) -> Tensor:
    """2 c (sqrt(error^2 + c^2) - c): smooth everywhere (Charbonnier et al. 1994; kohya's loss_type=huber)."""
    return 2 * c * ((error(prediction, target).square() + c * c).sqrt() - c)
