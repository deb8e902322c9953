"""A1111's `parameters` text of an image, and its reader: the grammar that A1111, ComfyUI and Civitai read.

    infotext := PROMPT [newline "Negative prompt: " NEGATIVE] newline params        params := key ": " value, joined by ", "

A value with a comma, a colon or a newline is written as JSON. (AUTOMATIC1111/stable-diffusion-webui 1.10, modules/infotext_utils.py.)
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from infer.draw.render import ControlNet, Render, number
from infer.draw.samplers import SAMPLERS

PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
NEGATIVE = "Negative prompt:"
LEAST_PAIRS = 3  # a last line with fewer belongs to the prompt

# A1111's label and schedule type for a base's own scheduler, by its class in diffusers
OWN = {
    "DDIMScheduler": ("DDIM", "Automatic"),
    "PNDMScheduler": ("PLMS", "Automatic"),
    "EulerDiscreteScheduler": ("Euler", "Uniform"),
    "EulerAncestralDiscreteScheduler": ("Euler a", "Uniform"),
    "HeunDiscreteScheduler": ("Heun", "Uniform"),
    "LMSDiscreteScheduler": ("LMS", "Uniform"),
    "DPMSolverMultistepScheduler": ("DPM++ 2M", "Automatic"),
    "UniPCMultistepScheduler": ("UniPC", "Automatic"),
    "LCMScheduler": ("LCM", "Automatic"),
    "FlowMatchEulerDiscreteScheduler": ("Euler", "Simple"),
}


@dataclass(frozen=True, kw_only=True)
class ModelNames:
    """What an image's text says of the files: the base's name and hash, its own scheduler, each adapter's name and short hash."""

    base: str
    scheduler: str | None = None
    adapters: Mapping[str, tuple[str, str]]  # reference -> (name, first 12 digits of the data section's sha256, A1111's "shorthash")
    controls: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # reference -> (name, AutoV1)
    embeddings: Mapping[str, str] = field(default_factory=dict)  # reference -> name
    vae: str | None = None
    embedded_guidance: bool = False


def infotext(render: Render, names: ModelNames, *, version: str) -> str:
    """The text of a resolved Render."""
    sampler, schedule = _sampler(render, names)
    tags = [f"<lora:{_tag(names.adapters.get(one.reference, (one.reference, ''))[0])}:{number(one.weight)}>" for one in render.adapters]
    hashes = [f"{_tag(name)}: {short}" for name, short in (names.adapters.get(one.reference, ("", "")) for one in render.adapters) if short]
    pairs: dict[str, object] = {
        "Steps": render.steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": number(1.0 if names.embedded_guidance else render.guidance or 0.0),
        "Distilled CFG Scale": number(render.guidance or 0.0) if names.embedded_guidance else None,
        "Seed": render.seed,
        "Size": f"{render.width}x{render.height}",
        "Model hash": (render.base_sha256 or "")[:10] or None,  # AutoV2
        "Model": names.base,
        "VAE hash": (render.vae_sha256 or "")[:10] if render.vae is not None else None,
        "VAE": names.vae,
        "Denoising strength": number(render.strength) if render.strength is not None else None,
        "Clip skip": render.clip_skip + 1 if render.clip_skip else None,  # diffusers counts layers left out, A1111 counts from the end
        "Init image hash": (render.init.sha256 or "")[:10] if render.init is not None else None,
        "RNG": "CPU",
        **_masked(render),
        **{f"ControlNet {number}": _control(one, names) for number, one in enumerate(render.controls)},
        "Lora hashes": ", ".join(hashes) or None,
        "TI hashes": _words(render, names) or None,
        "Version": version,
    }
    lines = [" ".join([render.prompt, *tags]) if tags else render.prompt]
    if render.negative:
        lines.append(f"{NEGATIVE} {render.negative}")
    lines.append(", ".join(f"{key}: {quote(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def _masked(render: Render) -> dict[str, str]:
    """The mask in A1111's keys: it redraws from the image itself, all of it at the drawing's size, with a hard edge."""
    if render.mask is None:
        return {}
    return {"Mask blur": "0", "Mask mode": "Inpaint masked", "Masked content": "original", "Inpaint area": "Whole image"}


def _control(one: ControlNet, names: ModelNames) -> str:
    """A ControlNet as A1111's ControlNet extension writes it."""
    name, short = names.controls.get(one.reference, (one.reference, ""))
    pairs = {
        "Module": "canny" if one.prepare == "edges" else one.prepare or "none",
        "Model": f"{_tag(name)} [{short}]" if short else _tag(name),
        "Weight": number(one.scale),
        "Guidance Start": number(one.start),
        "Guidance End": number(one.end),
        "Control Mode": "Balanced",
    }
    return ", ".join(f"{key}: {value}" for key, value in pairs.items())


def _words(render: Render, names: ModelNames) -> str:
    named = [(_tag(names.embeddings.get(one.reference, one.reference)), (one.sha256 or "")[:12]) for one in render.embeddings]
    return ", ".join(f"{name}: {short}" for name, short in named)


def quote(value: object) -> str:
    """The value as it stands in the last line: as JSON when it holds a comma, a colon or a newline."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",\n:") else text


def parse_infotext(text: str) -> dict[str, str]:
    """The pairs of a text, with "Prompt" and "Negative prompt", as A1111 reads them."""
    *lines, last = text.strip().split("\n")
    pairs = PAIR.findall(last)
    if len(pairs) < LEAST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            into, line = negative, line[len(NEGATIVE) :].strip()
        into.append(line)
    found = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    for key, value in pairs:
        found[key] = _unquote(value)
    return found


def _unquote(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"') and len(value) > 1):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _sampler(render: Render, names: ModelNames) -> tuple[str, str]:
    if render.sampler is not None:
        known = SAMPLERS[render.sampler]
        return known.title, known.schedule
    return OWN.get(names.scheduler or "", (names.scheduler or "Base's own", "Automatic"))


def _tag(name: str) -> str:
    """A name that can stand in `<lora:NAME:1>` and in the hashes: without what the grammar takes as its own."""
    return re.sub(r"[:,<>]", "", name)
