"""Loss weights by noise level, for each row of the table.

The papers weight the loss on the noise. A velocity's error is that of the noise over the signal level, both for
v = sqrt(alpha_bar) n - sqrt(1 - alpha_bar) x0 and for the flow's n - x0, so there the same weight is multiplied by signal^2.
SNR = signal^2 / noise^2.
"""

# N rows of the table

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from registry.errors import Refused
from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """A prediction type and its noise levels (N,) in float64, from the clean end to pure noise."""

    prediction: str
    signal: Tensor
    noise: Tensor

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio (N,)."""
        return (self.signal / self.noise).square()

    @property
    def noise_error(self) -> Tensor:
        """Error of the noise for an error of 1 in the model's own prediction (N,). Raises Refused for predictions without such a factor."""
        if self.prediction not in ("epsilon", "v_prediction", "flow"):
            raise Refused(f"This weighting is defined for epsilon, v_prediction and flow; the base predicts {self.prediction}.")
        return self.signal * 0 + 1 if self.prediction == "epsilon" else self.signal


WEIGHTINGS: OptionTable[Callable[..., Tensor]] = OptionTable("loss weighting")
"""(levels, *, options) -> weight of each row (N,) on the loss of the model's own prediction."""

Gamma = Annotated[float, Meaning("SNR above which the weight falls with 1 / SNR; the paper's is 5", 0.0, open_least=True)]
Exponent = Annotated[float, Meaning("exponent; 0 weights nothing", 0.0)]
Offset = Annotated[float, Meaning("added to the SNR", 0.0, open_least=True)]
Share = Annotated[float, Meaning("weight of the loss on v beside that on the noise", 0.0, open_least=True)]


@WEIGHTINGS.add("none")
def none(levels: Levels) -> Tensor:
    """1 at every timestep (Ho et al. 2020, eq. 14)."""
    return levels.signal * 0 + 1


@WEIGHTINGS.add("min_snr")
def min_snr(levels: Levels, *, gamma: Gamma = 5.0) -> Tensor:
    """min(SNR, gamma) / SNR on the noise, min(SNR, gamma) / (SNR + 1) on v (Hang et al. 2023, section 3.4)."""
    return (gamma / levels.snr).clamp(max=1) * levels.noise_error.square()


@WEIGHTINGS.add("p2")
def p2(levels: Levels, *, gamma: Exponent = 1.0, k: Offset = 1.0) -> Tensor:
    """1 / (k + SNR)^gamma on the noise: less weight where only imperceptible detail is left to learn (Choi et al. 2022, section 3.3)."""
    return (k + levels.snr) ** -gamma * levels.noise_error.square()


@WEIGHTINGS.add("debiased")
def debiased(levels: Levels) -> Tensor:
    """1 / sqrt(SNR) on the noise: errors of the implied x0 count alike at low SNR (Yu et al. 2024, debiased estimation)."""
    if levels.prediction == "epsilon":
        return levels.noise / levels.signal
    return levels.noise * levels.noise_error  # noise / signal x signal^2, also where the signal is 0


@WEIGHTINGS.add("v_like")
def v_like(levels: Levels, *, v_share: Share = 1.0) -> Tensor:
    """The loss on the noise plus v_share times that on v (Salimans & Ho 2022, section 4): 1 + v_share (SNR + 1) / SNR on the noise."""
    if levels.prediction == "epsilon":
        return 1 + v_share * (levels.snr + 1) / levels.snr
    return levels.noise_error.square() + v_share * (levels.signal.square() + levels.noise.square())


@WEIGHTINGS.add("x0")
def x0(levels: Levels) -> Tensor:
    """The loss on the implied x0: 1 / SNR on the noise, noise^2 on v and on a flow (Salimans & Ho 2022, section 4)."""
    return 1 / levels.snr if levels.prediction == "epsilon" else levels.noise.square()


@WEIGHTINGS.add("cosmap")
def cosmap(levels: Levels) -> Tensor:
    """2 / (pi (1 - 2 t + 2 t^2)) at t = noise level, flow models only: the density of cosmap timesteps (Esser et al. 2024, section 3.1)."""
    _flow_only("cosmap", levels)
    return 2 / (math.pi * (1 - 2 * levels.noise + 2 * levels.noise.square()))


@WEIGHTINGS.add("sigma_sqrt")
def sigma_sqrt(levels: Levels) -> Tensor:
    """1 / t^2 at t = noise level, flow models only: nearly all the weight at little noise (diffusers' weighting_scheme=sigma_sqrt)."""
    _flow_only("sigma_sqrt", levels)
    return levels.noise**-2


@WEIGHTINGS.add("bell")
def bell(levels: Levels) -> Tensor:
    """exp(-2 (t - 1/2)^2) less its value at the ends, over its mean, flow models only: most at middle noise (ai-toolkit, DiffSynth)."""
    _flow_only("bell", levels)
    least = math.exp(-0.5)
    mean = math.sqrt(math.pi / 2) * math.erf(math.sqrt(0.5)) - least  # over t in [0, 1]
    return ((-2 * (levels.noise - 0.5).square()).exp() - least).clamp(min=0) / mean


def _flow_only(name: str, levels: Levels) -> None:
    if levels.prediction != "flow":
        raise Refused(f"{name} is a weighting of flow models; the base predicts {levels.prediction}. Use min_snr, p2 or debiased.")
