"""What a sampler does not take: a schedule that it cannot step on, fresh noise."""

from __future__ import annotations

import inspect

from infer.draw.samplers import SAMPLERS, Sampler, build_scheduler
from infer.sampling.scheduled import SCHEDULED, Chosen
from registry.errors import Refused
from registry.parts import Parts

# with a perfect denoiser of data with a spread of 0.3, 40 steps draw a spread of 1.43 (tests/infer/sampling)
UNSTABLE = frozenset({("dpmpp_3m_sde", "uniform")})
CARRIER = "euler"  # a sampler that every schedule can be tried on


def check_ends(parts: Parts, schedule: Chosen | None) -> None:
    """Refuse ends of a schedule that the base's noise levels do not have."""
    if schedule is not None and parts.prediction != "flow":
        build_scheduler(parts, CARRIER, schedule=schedule).set_timesteps(1)


def check_schedule(parts: Parts, sampler: str | None, schedule: Chosen | None) -> None:
    """Refuse a schedule that the sampler cannot step on; None is its own."""
    if schedule is None:
        return
    if parts.prediction == "flow":
        raise Refused(
            f"schedule_type is {schedule.name}, but a flow-matching base is stepped on its own shifted sigmas here. Leave it out."
        )
    if sampler is not None and (plain := _plain(sampler)) not in (None, sampler):
        raise Refused(f"sampler {sampler!r} has a schedule in its name, and schedule_type is {schedule.name}. Give {plain!r}.")
    if (sampler, schedule.name) in UNSTABLE:
        raise Refused(f"Sampler {sampler!r} is not stable on schedule {schedule.name}. Use exponential or karras.")
    used = parts.scheduler_class if sampler is None else SAMPLERS[sampler].scheduler
    if used not in SCHEDULED:
        able = [name for name, one in SAMPLERS.items() if one.scheduler in SCHEDULED and _plain(name) in (None, name)]
        raise Refused(
            f"{_called(sampler)} steps on a schedule of its own ({used}). With schedule_type, give one of: {', '.join(sorted(able))}."
        )


def check_eta(parts: Parts, sampler: str | None, eta: float | None) -> None:
    """Refuse an eta above 0 for a sampler that has none."""
    if not eta:
        return
    if parts.prediction == "flow":
        raise Refused(f"eta is {eta:g}, but the samplers of a flow-matching base take none. Leave it out.")
    if not _takes_eta(parts.scheduler_class if sampler is None else SAMPLERS[sampler].scheduler):
        able = [name for name, one in SAMPLERS.items() if _takes_eta(one.scheduler)]
        raise Refused(f"eta is {eta:g}. {_called(sampler)} takes none. These do: {', '.join(sorted(able))}.")


def _plain(sampler: str) -> str | None:
    """The sampler of the same solver that names no schedule; None where there is none."""
    known = SAMPLERS[sampler]
    return next((name for name, one in SAMPLERS.items() if one.title == known.title and _is_plain(one)), None)


def _is_plain(one: Sampler) -> bool:
    return one.schedule in ("Uniform", "Automatic")


def _takes_eta(scheduler: str | None) -> bool:
    import diffusers

    return scheduler is not None and "eta" in inspect.signature(getattr(diffusers, scheduler).step).parameters


def _called(sampler: str | None) -> str:
    return "The base's own sampler" if sampler is None else f"Sampler {sampler!r}"
