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

First = Annotated[float, Meaning("first shape parameter: above the second more draws towards noise", 0.0, 100.0, open_least=True)]
Second = Annotated[float, Meaning("second shape parameter", 0.0, 100.0, open_least=True)]


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


@TIMESTEPS.add("beta")
def beta(quantiles: Tensor, *, a: First = 2.0, b: Second = 2.0) -> Tensor:
    """The quantile of Beta(a, b): both above 1 the middle most often, below 1 the ends (Lee et al. 2024, Beta sampling)."""
    import torch
    from scipy.stats import beta as distribution

    return torch.as_tensor(distribution.ppf(quantiles.double().numpy(), a, b), dtype=quantiles.dtype)


def shifted(shares: Tensor, shift: float) -> Tensor:
    """shift x / (1 + (shift - 1) x) of shares x: above 1 towards noise; one after another they multiply (Esser et al. 2024, eq. 23)."""
    return shares if shift == 1.0 else shift * shares / (1 + (shift - 1) * shares)


def quantile_of(share: float, shares_of: Callable[[Tensor], Tensor]) -> float:
    """The least quantile whose share is at least `share`: the inverse of a quantile function, by bisection."""
    import torch

    if share <= 0.0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(54):  # the bits of a float64
        middle = (low + high) / 2
        if float(shares_of(torch.tensor([middle], dtype=torch.float64))) >= share:
            high = middle
        else:
            low = middle
    return high
