"""Learning rate schedules: the factor on the peak rate after warmup, by the share of the steps that is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from registry.options import Meaning, OptionTable

SCHEDULES: OptionTable[Callable[..., float]] = OptionTable("learning rate schedule")
"""(progress in [0, 1), *, options) -> factor."""

Cycles = Annotated[int, Meaning("times it falls, restarting at the peak", 1)]
MinFactor = Annotated[float, Meaning("factor at the end, of the peak", 0.0, 1.0)]
Power = Annotated[float, Meaning("exponent: 1 is linear, above falls sooner", 0.0, open_least=True)]
Timescale = Annotated[float, Meaning("share of the steps after warmup in which it falls to 0.71 of the peak", 0.0, open_least=True)]
Decay = Annotated[float, Meaning("share of the steps after warmup in which it falls, at the end", 0.0, 1.0, open_least=True)]
Late = Annotated[float, Meaning("how late it falls: 0 is linear, OneTrainer's is 0.9", 0.0, 0.99)]
Fall = Annotated[Literal["linear", "cosine", "sqrt"], Meaning("shape of the fall: linear, cosine or sqrt (1 - square root)")]


@SCHEDULES.add("constant")
def constant(progress: float) -> float:
    """The peak rate to the end."""
    return 1.0


@SCHEDULES.add("cosine")
def cosine(progress: float, *, cycles: Cycles = 1, min_factor: MinFactor = 0.0) -> float:
    """Half a cosine from the peak down, `cycles` times (Loshchilov & Hutter 2017, eq. 5)."""
    return min_factor + (1.0 - min_factor) * (0.5 * (1.0 + math.cos(math.pi * (progress * cycles % 1.0))))


@SCHEDULES.add("linear")
def linear(progress: float, *, min_factor: MinFactor = 0.0) -> float:
    """A straight line from the peak down."""
    return polynomial(progress, power=1.0, min_factor=min_factor)


@SCHEDULES.add("polynomial")
def polynomial(progress: float, *, power: Power = 2.0, min_factor: MinFactor = 0.0) -> float:
    """min_factor + (1 - min_factor) (1 - progress)^power."""
    return min_factor + (1.0 - min_factor) * math.pow(1.0 - progress, power)


@SCHEDULES.add("rex")
def rex(progress: float, *, late: Late = 0.5, min_factor: MinFactor = 0.0) -> float:
    """(1 - progress) / (1 - late progress): high for long, then falls fast (Chen et al. 2022, REX, section 4)."""
    return min_factor + (1.0 - min_factor) * (1.0 - progress) / (1.0 - late * progress)


@SCHEDULES.add("inverse_sqrt")
def inverse_sqrt(progress: float, *, timescale: Timescale = 0.05) -> float:
    """1 / sqrt(1 + progress / timescale): never 0, for runs without a set end (Vaswani et al. 2017, eq. 3, with timescale = warmup)."""
    return 1.0 / math.sqrt(1.0 + progress / timescale)


@SCHEDULES.add("wsd")
def wsd(progress: float, *, decay: Decay = 0.2, fall: Fall = "sqrt", min_factor: MinFactor = 0.0) -> float:
    """Warmup, stable, decay: the peak rate, then a fall at the end (Hu et al. 2024, section 4; sqrt: Haegele et al. 2024, eq. 1)."""
    done = (progress - (1.0 - decay)) / decay  # of the fall
    if done <= 0.0:
        return 1.0
    left = {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "sqrt": 1.0 - math.sqrt(done)}[fall]
    return min_factor + (1.0 - min_factor) * left
