"""Sampler and schedule as other programs spell them -> the names here. One row a spelling, one place where titles become samplers.

A sampler whose own schedule is not the one that is named takes it by `schedule_type`: those are A1111's and ComfyUI's formulas, without
diffusers' rounding of timesteps.
"""

from __future__ import annotations

from infer.draw.samplers import AUTOMATIC, SAMPLERS
from infer.sampling.sigmas import SCHEDULES
from registry.errors import Refused
from registry.names import suggest

# A1111's title of a sampler by the names of ComfyUI, InvokeAI and NovelAI, without their prefix k_
TITLES = {
    "euler_ancestral": "Euler a",
    "euler_a": "Euler a",
    "dpm_2": "DPM2",
    "kdpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "kdpm_2_a": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_gpu": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC",
    "pndm": "PLMS",
    "ddim_v3": "DDIM",
}
LONE = {"ddim": "Euler"}  # in ComfyUI "ddim" is Euler
TYPES = {"normal": "Uniform", "native": "Uniform", "default": "Automatic", "": "Automatic"}  # of schedules
OF_FLOW = ("simple", "automatic", "uniform", "normal", "sgm uniform")  # what a flow base's own schedule stands for


def sampler_settings(sampler: str, schedule: str | None, *, flow: bool = False, comfy: bool = False) -> tuple[str, str | None]:
    """(sampler, schedule_type) here, the latter None where the sampler has that schedule itself. Raises Refused where there is none."""
    title, behind = _split(sampler, comfy=comfy)
    wanted = _schedule_title(schedule) if schedule is not None else behind or "Automatic"
    if behind and wanted == "Automatic":
        wanted = behind
    rows = {name: one for name, one in SAMPLERS.items() if one.title.lower() == title.lower()}
    if not rows:
        titles = list(dict.fromkeys(one.title for one in SAMPLERS.values()))
        raise Refused(f"the sampler {sampler!r} is not here. {suggest(title, titles)}")
    plain = next((name for name, one in rows.items() if one.schedule in ("Uniform", "Automatic")), None)
    if flow:
        if plain is None or SAMPLERS[plain].flow_scheduler is None:
            raise Refused(f"the sampler {sampler!r} cannot step a flow-matching base here")
        if wanted.lower() not in OF_FLOW:
            raise Refused(f"the schedule {wanted!r} is not here for a flow-matching base, which is stepped on its own shifted sigmas")
        return plain, None
    carrier = plain or next(iter(rows))
    exact, own = rows[carrier].title, rows[carrier].schedule
    if wanted == "Automatic":
        wanted = AUTOMATIC.get(exact, own)
    if exact not in AUTOMATIC and (own == wanted or (own == "Automatic" and wanted == "Uniform")):
        return carrier, None
    schedule_type = next((name for name, one in SCHEDULES.items() if one.title == wanted), None)
    if schedule_type is not None and _takes_schedule(carrier):
        return carrier, schedule_type
    for name, one in rows.items():
        if one.schedule == wanted:
            return name, None
    known = dict.fromkeys(
        [*(one.schedule for one in rows.values()), *(one.title for one in SCHEDULES.values() if _takes_schedule(carrier))]
    )
    raise Refused(f"the schedule {wanted!r} of the sampler {exact!r} is not here. Known: {', '.join(known)}")


def _takes_schedule(sampler: str) -> bool:
    from infer.sampling.scheduled import SCHEDULED

    return SAMPLERS[sampler].scheduler in SCHEDULED


def _split(label: str, *, comfy: bool) -> tuple[str, str | None]:
    """(title, schedule) of "DPM++ 2M Karras", "dpmpp_2m", "dpmpp_2m_k", "k_euler_ancestral"."""
    spelt = " ".join(label.split())
    lower = spelt.lower().removeprefix("k_")
    if comfy and lower in LONE:
        return LONE[lower], None
    behind = None
    if lower.endswith("_k") and " " not in lower:
        lower, behind = lower[:-2], "Karras"
    if lower in TITLES:
        return TITLES[lower], behind
    for one in dict.fromkeys(["Karras", "Exponential", "SGM Uniform", "Uniform", "Simple", "Beta", *(s.title for s in SCHEDULES.values())]):
        if lower.endswith(f" {one.lower()}"):
            return spelt[: -len(one) - 1], one
    return (lower if behind else spelt.removeprefix("k_")), behind


def _schedule_title(label: str) -> str:
    spelt = " ".join(label.replace("_", " ").split())
    known = {one.title.lower(): one.title for one in SCHEDULES.values()} | {"automatic": "Automatic"}
    return TYPES.get(spelt.lower()) or known.get(spelt.lower(), spelt)
