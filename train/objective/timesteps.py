"""Distributions of the training timesteps, as quantile functions: a uniform draw becomes a place in the table of noise levels."""

# B draws

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Tensor

TIMESTEPS: OptionTable[Callable[..., Tensor]] = OptionTable("timestep distribution")
"""(quantiles (B,) in [0, 1), *, options) -> share of the table (B,) in [0, 1], 0 being the clean end and 1 pure noise."""

Mean = Annotated[float, Meaning("mean of the normal draw: above 0 towards noise")]
Std = Annotated[float, Meaning("standard deviation of the normal draw", 0.0, open_least=True)]
Scale = Annotated[float, Meaning("above 0 more draws in the middle, below 0 at the ends", -1.0, 2 / (math.pi - 2))]  # monotonic in between


@TIMESTEPS.add("uniform")
def uniform(quantiles: Tensor) -> Tensor:
    """Every timestep equally often (Ho et al. 2020, algorithm 1)."""
    return quantiles


@TIMESTEPS.add("logit_normal")
def logit_normal(quantiles: Tensor, *, mean: Mean = 0.0, std: Std = 1.0) -> Tensor:
    """sigmoid(mean + std z), z standard normal: the middle most often (Esser et al. 2024, section 3.1)."""
    import torch

    normal: Tensor = torch.special.ndtri(quantiles.clamp(1e-12, 1 - 1e-12))
    return (normal * std + mean).sigmoid()


@TIMESTEPS.add("mode")
def mode(quantiles: Tensor, *, scale: Scale = 1.29) -> Tensor:
    """1 - u - scale (cos^2(pi u / 2) - 1 + u) with u = 1 - quantile: heavy tails (Esser et al. 2024, section 3.1)."""
    u = 1 - quantiles
    return 1 - u - scale * ((math.pi / 2 * u).cos().square() - 1 + u)


@TIMESTEPS.add("cosmap")
def cosmap(quantiles: Tensor) -> Tensor:
    """1 - 1 / (tan(pi u / 2) + 1): the log-SNR of a flow spread as that of the cosine schedule (Esser et al. 2024, section 3.1)."""
    return 1 - 1 / ((math.pi / 2 * quantiles).tan() + 1)
