"""Samplers by their usual names: the diffusers scheduler of each, and its settings.

The settings are applied over the base's own betas and prediction type, and are written out in full, so that nothing of the
base's own sampler leaks in. Compared with A1111's k-diffusion functions on an analytic score at 20 steps: `euler`, `heun` and
`lms` agree to 1e-5 and the others as their notes say. A base may insist on trailing spacing (it was made to start at its last,
almost noise-only step) and on zero terminal SNR: infer/draw/noise_schedule.py. docs/samplers.md has the combinations that
diffusers takes and steps wrongly; none of them is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from infer.draw.noise_schedule import base_settings, schedule_fault, schedule_version
from infer.draw.values import texts
from infer.sampling.scheduled import Chosen, scheduled_class
from registry.errors import Refused
from registry.names import Table
from registry.options import Meaning, Option, option_faults, read_options
from registry.parts import Parts


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """One sampler. `flow_*` is its form for flow-matching models; None: it has none."""

    title: str  # A1111's sampler label
    schedule: str = "Automatic"  # A1111's schedule type
    scheduler: str | None  # class name in diffusers; None: only for flow
    settings: Mapping[str, Any]
    flow_scheduler: str | None = None
    flow_settings: Mapping[str, Any] | None = None
    note: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)  # of the function that makes it
    make: Callable[..., Sampler] | None = None  # makes it with other options

    def with_options(self, params: Mapping[str, Any]) -> Sampler:
        """The sampler with these options. Raises Refused for options that it does not have or values out of range."""
        if faults := option_faults(self.label, self.options, params, where="sampler."):
            raise Refused(" ".join(faults))
        return self.make(**params) if self.make is not None and params else self

    @property
    def label(self) -> str:
        """The sampler in A1111's words."""
        return self.title if self.schedule == "Automatic" else f"{self.title} {self.schedule}"


SAMPLERS: Table[Sampler] = Table("sampler")


def sampler_function(name: str) -> Callable[[Callable[..., Sampler]], Callable[..., Sampler]]:
    """Register a function that makes a sampler; its keyword-only parameters are the sampler's options."""

    def keep(function: Callable[..., Sampler]) -> Callable[..., Sampler]:
        SAMPLERS.add(name)(replace(function(), options=read_options(function), make=function))
        return function

    return keep


_PLAIN: Mapping[str, Any] = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_KARRAS: Mapping[str, Any] = {**_PLAIN, "use_karras_sigmas": True}
_EXPONENTIAL: Mapping[str, Any] = {**_PLAIN, "use_exponential_sigmas": True}
_LINSPACE: Mapping[str, Any] = {"timestep_spacing": "linspace"}
_LEADING: Mapping[str, Any] = {"timestep_spacing": "leading", "steps_offset": 1}
_FLOW: Mapping[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_MULTISTEP: Mapping[str, Any] = {"solver_order": 2, "solver_type": "midpoint", "thresholding": False, "final_sigmas_type": "zero"}


def _dpmpp(order: int, algorithm: str, sigmas: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_MULTISTEP,
        **_LINSPACE,
        **sigmas,
        "solver_order": order,
        "algorithm_type": algorithm,
        "lower_order_final": True,
        "euler_at_final": False,
    }


def _multistep(
    title: str, schedule: str, order: int, algorithm: str, sigmas: Mapping[str, Any], *, flow: bool = False, note: str = ""
) -> Sampler:
    settings = _dpmpp(order, algorithm, sigmas)
    return Sampler(
        title=title,
        schedule=schedule,
        scheduler="DPMSolverMultistepScheduler",
        settings=settings,
        flow_scheduler="DPMSolverMultistepScheduler" if flow else None,
        flow_settings={**settings, **_FLOW} if flow else None,
        note=note,
    )


def _sigma(title: str, schedule: str, scheduler: str, sigmas: Mapping[str, Any], *, note: str = "") -> Sampler:
    return Sampler(title=title, schedule=schedule, scheduler=scheduler, settings={**_LINSPACE, **sigmas}, note=note)


_EULER = _sigma("Euler", "Uniform", "EulerDiscreteScheduler", {**_PLAIN, "interpolation_type": "linear", "final_sigmas_type": "zero"})
_DDIM = {**_LEADING, "clip_sample": False, "set_alpha_to_one": False, "thresholding": False}
_UNIPC = {**_LINSPACE, **_PLAIN, "solver_order": 2, "solver_type": "bh2", "thresholding": False, "final_sigmas_type": "zero"}

SAMPLERS["euler"] = Sampler(
    title="Euler",
    schedule="Uniform",
    scheduler=_EULER.scheduler,
    settings=_EULER.settings,
    flow_scheduler="FlowMatchEulerDiscreteScheduler",
    flow_settings={},
)
SAMPLERS["euler_karras"] = _sigma("Euler", "Karras", "EulerDiscreteScheduler", {**_EULER.settings, **_KARRAS})
SAMPLERS["euler_a"] = _sigma("Euler a", "Uniform", "EulerAncestralDiscreteScheduler", {})
SAMPLERS["heun"] = Sampler(
    title="Heun",
    schedule="Uniform",
    scheduler="HeunDiscreteScheduler",
    settings={**_LINSPACE, **_PLAIN, "clip_sample": False},
    flow_scheduler="FlowMatchHeunDiscreteScheduler",
    flow_settings={},
    note="two denoiser calls a step; for flow only with a static shift",
)
SAMPLERS["heun_karras"] = _sigma(
    "Heun", "Karras", "HeunDiscreteScheduler", {**_KARRAS, "clip_sample": False}, note="two denoiser calls a step"
)
SAMPLERS["lms"] = _sigma("LMS", "Uniform", "LMSDiscreteScheduler", _PLAIN)
SAMPLERS["lms_karras"] = _sigma("LMS", "Karras", "LMSDiscreteScheduler", _KARRAS)
SAMPLERS["dpm2_karras"] = _sigma(
    "DPM2", "Karras", "KDPM2DiscreteScheduler", _KARRAS, note="two calls a step; A1111 also drops its last but one sigma"
)
SAMPLERS["dpm2_a_karras"] = _sigma("DPM2 a", "Karras", "KDPM2AncestralDiscreteScheduler", _KARRAS, note="as dpm2_karras")
SAMPLERS["dpmpp_2m"] = _multistep(
    "DPM++ 2M", "Uniform", 2, "dpmsolver++", _PLAIN, flow=True, note="diffusers' even grid, which is not A1111's: images differ a little"
)
SAMPLERS["dpmpp_2m_karras"] = _multistep(
    "DPM++ 2M", "Karras", 2, "dpmsolver++", _KARRAS, note="within 2e-3 of A1111: diffusers rounds its timesteps"
)
SAMPLERS["dpmpp_2m_exponential"] = _multistep("DPM++ 2M", "Exponential", 2, "dpmsolver++", _EXPONENTIAL)
SAMPLERS["dpmpp_2m_sde"] = _multistep("DPM++ 2M SDE", "Uniform", 2, "sde-dpmsolver++", _PLAIN, note="noise is not A1111's Brownian tree")
SAMPLERS["dpmpp_2m_sde_karras"] = _multistep(
    "DPM++ 2M SDE", "Karras", 2, "sde-dpmsolver++", _KARRAS, note="noise is not A1111's Brownian tree"
)
SAMPLERS["dpmpp_3m_sde"] = _multistep("DPM++ 3M SDE", "Exponential", 3, "sde-dpmsolver++", _EXPONENTIAL, note="within 4e-2 of A1111")
SAMPLERS["ddim"] = Sampler(
    title="DDIM", scheduler="DDIMScheduler", settings=_DDIM, note="unclipped: the class's own clip_sample=True destroys latents"
)
SAMPLERS["pndm"] = Sampler(
    title="PLMS",
    scheduler="PNDMScheduler",
    settings={**_LEADING, "skip_prk_steps": True, "set_alpha_to_one": False},
    note="one more call than steps",
)
Order = Annotated[int, Meaning("order of the solver: 1 is DDIM, 2 is usual with guidance", 1, 3)]


@sampler_function("unipc")
def unipc(*, order: Order = 2) -> Sampler:
    """UniPC (Zhao et al. 2023) with B(h) of bh2: with bh1 diffusers 0.42.1 ends in numbers that are none."""
    settings = {**_UNIPC, "solver_order": order}
    return Sampler(
        title="UniPC",
        scheduler="UniPCMultistepScheduler",
        settings=settings,
        flow_scheduler="UniPCMultistepScheduler",
        flow_settings={**settings, **_FLOW},
    )


@sampler_function("lcm")
def lcm(
    *,
    original_steps: Annotated[
        int | None, Meaning("steps that the model was distilled over; null: as its scheduler has it", 1, 1000)
    ] = None,
) -> Sampler:
    """Latent consistency (Luo et al. 2023)."""
    distilled = {} if original_steps is None else {"original_inference_steps": original_steps}
    return Sampler(
        title="LCM",
        scheduler="LCMScheduler",
        settings={"clip_sample": False, "set_alpha_to_one": True, "thresholding": False, **distilled},
        flow_scheduler="FlowMatchLCMScheduler",
        flow_settings={},
        note="for consistency-distilled models and adapters",
    )


SAMPLERS["tcd"] = Sampler(
    title="TCD",
    scheduler="TCDScheduler",
    settings={"clip_sample": False, "set_alpha_to_one": True, "thresholding": False},
    note="for TCD-distilled models",
)


# A1111's own schedules (from version 1.9 on), where they are not uniform
AUTOMATIC = {"DPM++ 2M": "Karras", "DPM2": "Karras", "DPM2 a": "Karras", "DPM++ 2M SDE": "Exponential", "DPM++ 3M SDE": "Exponential"}


def sampler_name(label: str) -> str:
    """The name of a sampler that is given as A1111 spells it, "DPM++ 2M Karras" or "Euler a"; any other text unchanged.

    Without a schedule it has the one that A1111 calls automatic. Raises Refused where that one is not here.
    """
    spelt = " ".join(label.split()).lower()
    for name, one in SAMPLERS.items():
        labels = {f"{one.title} {one.schedule}"}
        if one.schedule in (AUTOMATIC.get(one.title, "Uniform"), "Automatic"):
            labels |= {one.title, f"{one.title} Automatic"}
        if spelt in {each.lower() for each in labels} and label not in SAMPLERS:
            return name
    titles = {title.lower(): title for title in AUTOMATIC}
    if spelt in titles:
        title = titles[spelt]
        others = ", ".join(name for name, one in SAMPLERS.items() if one.title == title)
        raise Refused(f"{title} has the schedule {AUTOMATIC[title]} in A1111, which is not here. Expected one of: {others}.")
    return label


def sampler_names(value: object) -> Sequence[str | None]:
    """The sampler of a name or of A1111's label; null is the base's own."""
    return [None if text is None else sampler_name(text) for text in texts(value)]


DISTILLED = frozenset({"lcm", "tcd"})  # their steps are a choice among those of the distillation


def flow_samplers() -> list[str]:
    """The names that also work with flow-matching models."""
    return sorted(name for name, sampler in SAMPLERS.items() if sampler.flow_scheduler is not None)


def check_sampler(
    sampler: str | None, *, prediction: str, params: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
) -> None:
    """Refuse a sampler that does not exist, has no such options or cannot step the base; None is the base's own.

    `config` is that of the base's own scheduler.
    """
    if sampler is None:
        if params:
            raise Refused(f"The base's own sampler has no options. Name one for {', '.join(params)}.")
        return
    known = SAMPLERS[sampler].with_options(params or {})
    if prediction == "flow":
        if known.flow_scheduler is None:
            can = ", ".join(flow_samplers())
            raise Refused(f"Sampler {sampler!r} cannot step a flow-matching base. These can: {can}; none given is the base's own.")
        return
    if fault := schedule_fault(str(known.scheduler), config or {}, prediction=prediction):
        others = [name for name, one in SAMPLERS.items() if schedule_fault(str(one.scheduler), config or {}, prediction=prediction) is None]
        raise Refused(f"Sampler {sampler!r} cannot step this base: {fault}. These can: {', '.join(sorted(others))}.")


DISTILLED_STEPS = 50  # `original_inference_steps` of LCM and TCD in diffusers, where the base's scheduler does not say


def check_steps(sampler: str | None, steps: int, *, prediction: str, config: Mapping[str, Any]) -> None:
    """Refuse more steps than a distilled sampler picks among; `config` is that of the base's own scheduler."""
    if sampler not in DISTILLED or prediction == "flow":  # flow sigmas are even, of any number
        return
    most = config.get("original_inference_steps", DISTILLED_STEPS)
    if type(most) is not int or most < 1:
        raise Refused(f"original_inference_steps of the base's scheduler is {most!r}. Expected a whole number, such as {DISTILLED_STEPS}.")
    if steps > most:
        raise Refused(
            f"steps is {steps}, but sampler {sampler!r} picks its steps among the {most} that models are distilled over."
            f" Expected 1 to {most}; 4 to 8 are usual."
        )


def drawn_schedule(parts: Parts, sampler: str | None) -> str | None:
    """The version of the noise schedule that enters the key of an image of this sampler on this base; None: the first."""
    if sampler is None or parts.prediction == "flow":
        return None
    known = SAMPLERS[sampler]
    return schedule_version(str(known.scheduler), known.settings, parts.scheduler_config)


def build_scheduler(
    parts: Parts, sampler: str | None = None, params: Mapping[str, Any] | None = None, *, schedule: Chosen | None = None
) -> Any:
    """A fresh diffusers scheduler for one image: the base's own, or the named sampler on the base's betas and prediction.

    Schedulers keep state: one object an image, and `Family.set_timesteps` before use.
    """
    import diffusers

    own = dict(parts.scheduler_config)
    check_sampler(sampler, prediction=parts.prediction, params=params, config=own)

    def class_of(name: str) -> Any:
        return getattr(diffusers, name) if schedule is None else scheduled_class(getattr(diffusers, name), schedule)

    if sampler is None:
        return class_of(parts.scheduler_class).from_config(own)
    known = SAMPLERS[sampler].with_options(params or {})
    if parts.prediction != "flow":
        settings = {**known.settings, **base_settings(str(known.scheduler), known.settings, own)}
        return _built(class_of(str(known.scheduler)), own, settings)
    settings = dict(known.flow_settings or {})
    if known.flow_scheduler == "FlowMatchHeunDiscreteScheduler" and own.get("use_dynamic_shifting"):
        others = ", ".join(name for name in flow_samplers() if name != sampler)
        raise Refused(f"Sampler {sampler!r} has no resolution-dependent shift, which this base is made for. Use one of: {others}.")
    shift = own.get("shift", own.get("flow_shift", 1.0))  # the one number under the names of two kinds of schedulers
    settings["shift"] = shift
    if known.settings.get("solver_order") is not None:
        settings["flow_shift"] = shift
        settings["use_dynamic_shifting"] = bool(own.get("use_dynamic_shifting", False))
    return _built(getattr(diffusers, str(known.flow_scheduler)), own, settings)


SHIFT = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")  # the base's line from tokens to time shift


def _built(scheduler_class: Any, own: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """The class on the base's config with the settings that it accepts: diffusers only warns of others.

    The shift's line stays in the config of classes that do not know it, as in diffusers' own `from_config`: families read it there.
    """
    import inspect

    accepted = set(inspect.signature(scheduler_class.__init__).parameters)
    known = {key: value for key, value in {**own, **settings}.items() if key in accepted}
    scheduler = scheduler_class(**known)
    scheduler.register_to_config(**{key: own[key] for key in SHIFT if key in own and key not in accepted})
    return scheduler
