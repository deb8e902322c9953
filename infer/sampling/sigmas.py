"""Noise schedules by A1111's names: the noise levels (sigmas) that a sampler steps through, from high to low, without the 0 at the end.

sigma = sqrt((1 - abar) / abar), abar the base's own `alphas_cumprod`. The formulas are those of k-diffusion 0.1.1 and of A1111 1.10
(modules/sd_schedulers.py); each is one function here, and a schedule of every sampler that steps on sigmas by that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from infer.draw.values import texts
from registry.errors import Refused
from registry.names import Table

RHO = 7.0  # of Karras et al. 2022
BETA = 0.6  # both parameters of the beta distribution, as in A1111 and diffusers


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The sigmas of a base by timestep, float64 and rising, and the ends between which a schedule runs."""

    table: Any  # (T,)
    least: float
    most: float

    def sigma(self, timesteps: Any) -> Any:
        """The sigmas at timesteps that need not be whole: their logarithm is interpolated, as in k-diffusion."""
        import numpy

        return numpy.exp(numpy.interp(timesteps, numpy.arange(len(self.table)), numpy.log(self.table)))

    def timestep(self, sigmas: Any) -> Any:
        """The inverse."""
        import numpy

        return numpy.interp(numpy.log(sigmas), numpy.log(self.table), numpy.arange(len(self.table)))


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One schedule. `sigmas(levels, steps)` gives (steps,) falling; `bounded`: it takes other ends than the table's."""

    title: str  # A1111's schedule type
    sigmas: Callable[[Levels, int], Any]
    bounded: bool


SCHEDULES: Table[Schedule] = Table("schedule")


def schedule(name: str, title: str, *, bounded: bool) -> Callable[[Callable[[Levels, int], Any]], Callable[[Levels, int], Any]]:
    """Register a function as a schedule."""

    def keep(function: Callable[[Levels, int], Any]) -> Callable[[Levels, int], Any]:
        SCHEDULES[name] = Schedule(title=title, sigmas=function, bounded=bounded)
        return function

    return keep


@schedule("uniform", "Uniform", bounded=False)
def uniform(levels: Levels, steps: int) -> Any:
    """Even timesteps from the last to the first."""
    import numpy

    return levels.sigma(numpy.linspace(len(levels.table) - 1, 0, steps))


@schedule("sgm_uniform", "SGM Uniform", bounded=True)
def sgm_uniform(levels: Levels, steps: int) -> Any:
    """Even timesteps, one more than the steps and without the lowest: trailing spacing (Lin et al. 2023, table 2)."""
    import numpy

    ends = levels.timestep(numpy.array([levels.most, levels.least]))
    return levels.sigma(numpy.linspace(ends[0], ends[1], steps + 1)[:-1])


@schedule("simple", "Simple", bounded=False)
def simple(levels: Levels, steps: int) -> Any:
    """Every (T / steps)-th sigma of the table, from its end."""
    import numpy

    places = len(levels.table) - 1 - (numpy.arange(steps) * (len(levels.table) / steps)).astype(int)
    return levels.table[places]


@schedule("karras", "Karras", bounded=True)
def karras(levels: Levels, steps: int) -> Any:
    """Even in sigma^(1 / 7) (Karras et al. 2022, eq. 5)."""
    import numpy

    high, low = levels.most ** (1 / RHO), levels.least ** (1 / RHO)
    return (high + numpy.linspace(0, 1, steps) * (low - high)) ** RHO


@schedule("exponential", "Exponential", bounded=True)
def exponential(levels: Levels, steps: int) -> Any:
    """Even in log sigma."""
    import numpy

    return numpy.exp(numpy.linspace(numpy.log(levels.most), numpy.log(levels.least), steps))


@schedule("beta", "Beta", bounded=True)
def beta(levels: Levels, steps: int) -> Any:
    """Quantiles of Beta(0.6, 0.6) between the ends: dense at both (Lee et al. 2024)."""
    import numpy
    from scipy.stats import beta as distribution

    shares = distribution.ppf(1 - numpy.linspace(0, 1, steps), BETA, BETA)
    return levels.least + shares * (levels.most - levels.least)


def schedule_name(label: str) -> str:
    """The name of a schedule that is given as A1111 spells it ("SGM Uniform"); any other text unchanged."""
    spelt = " ".join(label.split()).lower()
    return next((name for name, one in SCHEDULES.items() if one.title.lower() == spelt), label)


def schedule_names(value: object) -> Sequence[str | None]:
    """The schedule of a name or of A1111's label; null is the sampler's own."""
    return [None if text is None else schedule_name(text) for text in texts(value)]


def levels_of(alphas_cumprod: Any, *, least: float | None = None, most: float | None = None) -> Levels:
    """The levels of a base's `alphas_cumprod` (T,). Raises Refused for ends beyond the table's, or the wrong way round."""
    import numpy

    kept = numpy.asarray(alphas_cumprod, dtype=numpy.float64)
    table = numpy.sqrt((1 - kept) / kept)
    lowest, highest = float(table[0]), float(table[-1])
    for name, value in (("sigma_min", least), ("sigma_max", most)):
        if value is not None and not lowest * (1 - 1e-6) <= value <= highest * (1 + 1e-6):
            raise Refused(f"{name} is {value:g}. Expected {lowest:.4g} to {highest:.4g}: the noise levels that this base was trained on.")
    found = Levels(table=table, least=lowest if least is None else least, most=highest if most is None else most)
    if found.least >= found.most:
        raise Refused(f"sigma_min is {found.least:g} and sigma_max {found.most:g}. Expected the first to be the lower one.")
    return found
