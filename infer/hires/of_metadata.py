"""The second pass of another program's image as the setting `hires`."""

from __future__ import annotations

from dataclasses import dataclass

from infer.hires.setting import SCALE, STRENGTH, UPSCALER, Hires, enlarged_size
from infer.hires.upscalers import UPSCALERS, upscaler_fault, upscaler_name
from infer.metadata.result import SecondPass
from infer.metadata.samplers import sampler_settings
from registry.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampler and schedule as the program spells them, and how they are read."""

    sampler: str | None
    schedule: str | None
    flow: bool
    comfy: bool


def hires_of(second: SecondPass, first: tuple[int, int] | None, *, multiple: int, sampling: Sampling) -> Hires:
    """The setting; `first` is the size of the first pass, where it is known, and `sampling` is how that one is stepped.

    Raises Refused where it is not drawn here.
    """
    upscaler = upscaler_name(second.upscaler or UPSCALER)
    if upscaler not in UPSCALERS:
        raise Refused(str(upscaler_fault(upscaler)))
    width, height = second.width, second.height
    scale = None if width or height else second.scale or SCALE
    if first is not None and scale is None:
        width, height = width or (height or 0) * first[0] // first[1], height or (width or 0) * first[1] // first[0]
        width, height = (side // multiple * multiple for side in (width, height))  # as A1111 does it
    own, schedule = None, None
    if second.sampler is not None or second.schedule is not None:
        own, schedule = sampler_settings(
            second.sampler or sampling.sampler or "Euler", second.schedule or sampling.schedule, flow=sampling.flow, comfy=sampling.comfy
        )
    found = Hires(
        scale=scale,
        width=None if scale is not None else width,
        height=None if scale is not None else height,
        upscaler=upscaler,
        steps=second.steps,
        strength=STRENGTH if second.strength is None else second.strength,
        sampler=own,
        schedule=schedule,
        guidance=second.guidance,
        seed=second.seed,
    )
    if first is not None:
        enlarged_size(found, first, multiple=multiple)
    return found
