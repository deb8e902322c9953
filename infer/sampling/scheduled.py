"""A diffusers scheduler on a schedule of SCHEDULES in place of its own: sampler and schedule are chosen apart, as in A1111 and ComfyUI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infer.sampling.sigmas import SCHEDULES, levels_of
from registry.errors import Refused

# classes whose steps follow `sigmas` alone, one a step; those of second order repeat them in ways of their own
SCHEDULED = frozenset(
    {
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "LMSDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
    }
)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A schedule by name, and the ends that it runs between (None: the base's)."""

    name: str
    least: float | None = None
    most: float | None = None

    def sigmas(self, alphas_cumprod: Any, steps: int) -> tuple[Any, Any]:
        """(sigmas, timesteps) of so many steps, (steps,) each, falling. Raises Refused for ends that the base does not have."""
        levels = levels_of(alphas_cumprod, least=self.least, most=self.most)
        sigmas = SCHEDULES[self.name].sigmas(levels, steps)
        return sigmas, levels.timestep(sigmas)


def chosen_schedule(name: str | None, least: float | None, most: float | None) -> Chosen | None:
    """The schedule of three settings; None where the sampler's own is kept. Raises Refused where they do not go together."""
    if name is None:
        if least is not None or most is not None:
            bounded = ", ".join(one for one, known in SCHEDULES.items() if known.bounded)
            raise Refused(f"sigma_min and sigma_max are ends of a schedule, and none is given. Give schedule_type too: {bounded}.")
        return None
    known = SCHEDULES[name]
    if not known.bounded and (least is not None or most is not None):
        bounded = ", ".join(one for one, each in SCHEDULES.items() if each.bounded)
        raise Refused(f"schedule_type {name!r} runs over the base's whole table; sigma_min and sigma_max are for {bounded}.")
    return Chosen(name=name, least=least, most=most)


def scheduled_class(scheduler_class: Any, chosen: Chosen) -> Any:
    """The scheduler class with `set_timesteps` on the chosen schedule."""

    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None, **options: Any) -> None:
        import torch

        scheduler_class.set_timesteps(self, num_inference_steps, device=device, **options)
        sigmas, timesteps = chosen.sigmas(self.alphas_cumprod, num_inference_steps)
        self.sigmas = torch.tensor([*sigmas, 0.0], dtype=torch.float32)
        self.timesteps = torch.tensor(timesteps, dtype=torch.float32, device=device)
        self.num_inference_steps = len(timesteps)

    return type(scheduler_class.__name__, (scheduler_class,), {"set_timesteps": set_timesteps, "__module__": scheduler_class.__module__})
