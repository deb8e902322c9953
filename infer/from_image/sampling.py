"""Seed, sampler, guidance, size, and whose noise the seed draws."""

from __future__ import annotations

from infer.from_image.taking import COMFY, Taking
from infer.metadata.samplers import sampler_settings
from registry.errors import Refused


def take_sampling(taking: Taking) -> None:
    found = taking.metadata
    taking.put("seed", found.seed)
    taking.put("steps", found.steps)
    distilled = found.distilled is not None and (taking.family is None or taking.is_flow)
    taking.put("guidance", found.distilled if distilled else found.guidance)
    if distilled and found.guidance not in (None, 1.0):
        taking.leave("CFG scale", found.guidance, "a base with embedded guidance is drawn in one pass here")
    taking.put("rescale", found.rescale)
    if found.sampler is None or "sampler" in taking.given:
        if found.schedule not in (None, "Automatic") and "schedule_type" not in taking.given:
            taking.leave("schedule", found.schedule, "another sampler is given; give schedule_type too")
        return
    try:
        sampler, schedule = sampler_settings(found.sampler, found.schedule, flow=taking.is_flow, comfy=found.tool in COMFY)
    except Refused as error:
        taking.faults.append(f"The image was drawn with {found.sampler} {found.schedule or ''}".rstrip() + f": {error}. Give sampler=NAME.")
        return
    taking.put("sampler", sampler)
    taking.put("schedule_type", schedule)
    for name in ("sigma_min", "sigma_max"):
        if (value := getattr(found, name)) is not None:
            taking.put(name, value) if schedule else taking.leave(name, value, "the sampler keeps its own noise levels")
    if found.eta:
        taking.put("eta", found.eta) if sampler == "ddim" else taking.leave("Eta", found.eta, f"{sampler} takes none")


def take_size(taking: Taking) -> None:
    found = taking.metadata
    if found.width is not None and found.height is not None:
        taking.put("size", f"{found.width}x{found.height}")


def remark_on_noise(taking: Taking) -> None:
    noise, tool = taking.metadata.noise, taking.metadata.tool
    if noise is not None and noise.upper() != "CPU" and "seed" in taking.settings:
        source = "" if noise.upper() == "GPU" else f" ({noise})"
        taking.remarks.append(
            f"{tool} drew the noise of this seed on the GPU{source}, and here it is drawn on the CPU: the same settings, another"
            " start, another image. With RNG set to CPU, A1111 has the noise that is drawn here."
        )
