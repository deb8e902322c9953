"""Noise of training: plain Gaussian noise, and what people change in it. Several may be joined: offset+perturbation.

`learned` is the noise that the target is made of, `added` the one that is mixed into the latents. They differ under perturbation alone:
    noisy = signal x0 + noise_level added,      target = TARGETS[prediction](x0, learned)
Held-out loss is always measured on plain noise, so that runs can be compared.
"""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from registry.errors import Refused
from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Generator, Tensor

NORMAL = "normal"
DIFFUSION_ONLY = ("offset", "pyramid")


@dataclass(frozen=True)
class Noises:
    """The noise of one pass (B, C, H, W): what is mixed into the latents, and what the target is made of."""

    added: Tensor
    learned: Tensor

    def plus(self, more: Tensor) -> Noises:
        """Both with the same noise more."""
        return Noises(self.added + more, self.learned + more)


NOISES: OptionTable[Callable[..., Noises]] = OptionTable("noise")
"""(noises, latents (B, C, H, W), generators, one for each image, *, options) -> noises."""

Offset = Annotated[float, Meaning("strength of the offset; 0.05 to 0.1 is usual", 0.0, 1.0, open_least=True)]
RandomOffset = Annotated[bool, Meaning("the offset's strength is drawn for each image, from 0 to it")]
Adaptive = Annotated[float, Meaning("added to the offset's strength for each unit of a latent channel's |mean|", -10.0, 10.0)]
Iterations = Annotated[int, Meaning("resolutions of noise that are added", 1, 16)]
Discount = Annotated[float, Meaning("factor from one resolution to the next coarser one", 0.0, 1.0, open_least=True)]
Strength = Annotated[float, Meaning("standard deviation of the perturbation; the paper's is 0.1", 0.0, 1.0, open_least=True)]
RandomStrength = Annotated[bool, Meaning("the perturbation's strength is drawn for each image, from 0 to it")]


@NOISES.add(NORMAL)
def normal(noises: Noises, latents: Tensor, generators: Sequence[Generator]) -> Noises:
    """n, standard normal (Ho et al. 2020, algorithm 1)."""
    return noises


@NOISES.add("offset")
def offset(
    noises: Noises,
    latents: Tensor,
    generators: Sequence[Generator],
    *,
    offset: Offset = 0.05,
    offset_random: RandomOffset = False,
    offset_adaptive: Adaptive = 0.0,
) -> Noises:
    """n + s e with one e a channel, standard normal: very dark and very bright images are learned (Guttenberg 2023, crosslabs.org).

    s = u offset + offset_adaptive |mean of the latent's channel|, not below 0; u is 1, or uniform in [0, 1) where it is random.
    Both the input and the target have it, as in sd-scripts.
    """
    import torch

    shifts = []
    for generator in generators:
        share = torch.rand((), generator=generator) if offset_random else 1.0
        shifts.append(torch.randn(noises.learned.shape[1], 1, 1, generator=generator) * share)
    own = offset_adaptive * latents.mean((2, 3), keepdim=True).abs()  # (B, C, 1, 1)
    if not offset_adaptive:
        return noises.plus(offset * torch.stack(shifts))
    values = torch.stack(shifts)
    return noises.plus((offset + own).clamp(min=0) * values)


@NOISES.add("pyramid")
def pyramid(
    noises: Noises, latents: Tensor, generators: Sequence[Generator], *, iterations: Iterations = 6, discount: Discount = 0.3
) -> Noises:
    """(n + sum over i of discount^i up(e_i)) / its standard deviation: noise of several resolutions (Whitaker 2023).

    e_i has the side H / r_i^i, r_i uniform in [2, 4) for each image, and is enlarged bilinearly; the sum ends at one pixel.
    """
    import torch

    more = torch.stack([_pyramid(noises.learned.shape[1:], generator, iterations, discount) for generator in generators])
    sums = noises.plus(more)
    deviation = sums.learned.flatten(1).std(1).view(-1, 1, 1, 1)
    return Noises(sums.added / deviation, sums.learned / deviation)


def _pyramid(shape: Sequence[int], generator: Generator, iterations: int, discount: float) -> Tensor:
    """What is added to one image's noise (C, H, W)."""
    import torch
    from torch.nn.functional import interpolate

    channels, height, width = shape
    found = torch.zeros(channels, height, width)
    for number in range(iterations):
        ratio = float(torch.rand((), generator=generator, dtype=torch.float64)) * 2 + 2
        size = max(1, int(height / ratio**number)), max(1, int(width / ratio**number))
        coarse = torch.randn(1, channels, *size, generator=generator)
        found = found + interpolate(coarse, (height, width), mode="bilinear")[0] * discount**number
        if 1 in size:
            break
    return found


@NOISES.add("perturbation")
def perturbation(
    noises: Noises,
    latents: Tensor,
    generators: Sequence[Generator],
    *,
    perturbation: Strength = 0.1,
    perturbation_random: RandomStrength = False,
) -> Noises:
    """The input has n + perturbation e, the target n: errors of earlier sampling steps are met in training (Ning et al. 2023, eq. 7)."""
    import torch

    more = []
    for generator in generators:
        share = torch.rand((), generator=generator) if perturbation_random else 1.0
        more.append(torch.randn(noises.learned.shape[1:], generator=generator) * share)
    return replace(noises, added=noises.added + perturbation * torch.stack(more))


def noise_names(text: str) -> list[str]:
    """The noises of a setting: their names joined by +. Raises Refused for one that is named twice or joined with `normal`."""
    names = [name.strip() for name in text.split("+")]
    if len(set(names)) < len(names):
        raise Refused(f"objective.noise={text} names one twice.")
    if len(names) > 1 and NORMAL in names:
        raise Refused(f"objective.noise={text}: {NORMAL} is no change of the noise. Leave it out, or give it alone.")
    return names


def check_noises(names: Iterable[str], prediction: str) -> None:
    """Refuse noise that does not suit what the base predicts."""
    wrong = [name for name in names if name in DIFFUSION_ONLY]
    if wrong and prediction == "flow":
        raise Refused(
            f"objective.noise={'+'.join(wrong)}: the base is a flow model. It learns pure noise at sigma 1 already and is drawn from"
            " standard normal noise, which this would no longer be. Leave it out; objective.noise=perturbation suits flow models too."
        )
