"""A1111's `parameters` text of an image: the grammar that A1111, ComfyUI and Civitai read.

    infotext := PROMPT [newline "Negative prompt: " NEGATIVE] newline params        params := key ": " value, joined by ", "

A value with a comma, a colon or a newline is written as JSON; brackets and backslashes of the prompts are escaped, since A1111 reads bare
ones as weights. (AUTOMATIC1111/stable-diffusion-webui 1.10, modules/infotext_utils.py.)
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from infer.draw.files import Adapter, ControlNet
from infer.draw.render import SETTINGS, Render
from infer.draw.samplers import SAMPLERS
from infer.draw.values import number
from infer.hires.setting import Hires
from infer.hires.upscalers import UPSCALERS
from infer.metadata.weighted_text import Weighted, spelt
from infer.prompt.attention import comfy_pieces
from infer.prompt.dialect import A1111, COMFY, PLAIN
from infer.prompt.marks import escape
from infer.sampling.sigmas import SCHEDULES
from registry.merging.adapter_blocks import as_numbers

NEGATIVE = "Negative prompt:"

# the order of the keys: A1111's, with the additional ones among them
ORDER = (
    *(
        "Steps",
        "Sampler",
        "Schedule type",
        "CFG scale",
        "Distilled CFG Scale",
        "CFG Rescale",
        "Seed",
        "Size",
        "Model hash",
        "Model",
        "VAE hash",
        "VAE",
    ),
    *(
        "Denoising strength",
        "Clip skip",
        "Prompt clip skip",
        "Emphasis",
        "Init image hash",
        "RNG",
        "Mask blur",
        "Mask mode",
        "Masked content",
        "Inpaint area",
    ),
    *(
        "Hires upscale",
        "Hires resize",
        "Hires steps",
        "Hires upscaler",
        "Hires sampler",
        "Hires schedule type",
        "Hires CFG Scale",
        "Hires seed",
    ),
    *("ControlNet", "Lora hashes", "TI hashes", "Version"),
)

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
    """The names of an image's files for its text: the base's name and hash, its own scheduler, each adapter's name and short hash."""

    base: str
    scheduler: str | None = None
    adapters: Mapping[str, tuple[str, str]]  # reference -> (name, first 12 digits of the data section's sha256, A1111's "shorthash")
    controls: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # reference -> (name, AutoV1)
    embeddings: Mapping[str, str] = field(default_factory=dict)  # reference -> name
    vae: str | None = None
    embedded_guidance: bool = False
    blocks: Sequence[str] = ()  # of the base's denoiser, where an adapter has block weights


def infotext(render: Render, names: ModelNames, *, version: str) -> str:
    """The text of a resolved Render."""
    tags = [
        f"<lora:{_tag(names.adapters.get(one.reference, (one.reference, ''))[0])}:{_weights(one, names)}>" for one in render.every_adapter
    ]
    pairs: dict[str, object] = {"RNG": "CPU", "Version": version}
    written = SPELT.get(render.prompt_dialect, _literal)
    for one in SETTINGS.values():
        if one.field in WRITERS:
            pairs |= WRITERS[one.field](render, names)
        elif one.infotext:
            pairs[one.infotext] = (one.infotext_value or one.show)(one.value(render))
    pairs = dict(sorted(pairs.items(), key=lambda pair: _rank(pair[0])))
    lines = [" ".join([written(render.prompt), *tags])]
    if render.negative:
        lines.append(f"{NEGATIVE} {written(render.negative)}")
    lines.append(", ".join(f"{key}: {quote(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def _literal(text: str) -> str:
    """A prompt that is read letter by letter, so that A1111 reads it so: a number behind a colon at its end would be the whole's weight."""
    literal = escape(text)
    return f"({literal}:1.0)" if TAIL.search(literal) else literal


def _of_comfy(text: str) -> str:
    """A prompt of ComfyUI's grammar in A1111's: each weight is the whole one there, without nesting."""
    written = spelt(((Weighted(one.text, one.weight)) for one in comfy_pieces(text)), square=True)
    return f"({written}:1.0)" if TAIL.search(written) else written


TAIL = re.compile(r":\s*[-+]?(?:\d+\.?|\d*\.\d+)\s*$")  # what A1111's AND takes for a weight
SPELT: dict[str, Callable[[str], str]] = {**dict.fromkeys(A1111, str), COMFY: _of_comfy}


def _rank(key: str) -> float:
    """Where a key is written: in A1111's order; one that A1111 does not know is the last before the version."""
    key = key.rstrip("0123456789 ")
    return ORDER.index(key) if key in ORDER else len(ORDER) - 1.5


# --- what takes the names of files, or several keys


def _base(render: Render, names: ModelNames) -> dict[str, object]:
    return {"Model hash": (render.base_sha256 or "")[:10] or None, "Model": names.base}  # AutoV2


def _weights(one: Adapter, names: ModelNames) -> str:
    """WEIGHT, or TE:UNET where they differ, and the block weights as sd-webui-lora-block-weight reads them."""
    weights = number(one.weight) if one.text_weight is None else f"{number(one.text_weight)}:{number(one.weight)}"
    return f"{weights}:lbw={as_numbers(one.blocks, names.blocks)}" if one.blocks else weights


def _dialect(render: Render, _names: ModelNames) -> dict[str, object]:
    if render.prompt_dialect in A1111:
        return {"Emphasis": None if render.prompt_dialect == "a1111" else "No norm"}
    return {"Prompt dialect": None if render.prompt_dialect == PLAIN else render.prompt_dialect}


def _clip_skip(render: Render, _names: ModelNames) -> dict[str, object]:
    """A1111's "Clip skip" is for both prompts and counts from 1: its readers would draw another image of what is for the prompt alone."""
    skip = render.clip_skip or None
    return {"Clip skip": skip and skip + 1} if render.prompt_dialect in A1111 else {"Prompt clip skip": skip}


def _vae(render: Render, names: ModelNames) -> dict[str, object]:
    return {"VAE hash": (render.vae_sha256 or "")[:10] if render.vae is not None else None, "VAE": names.vae}


def _sampler(render: Render, names: ModelNames) -> dict[str, object]:
    if render.sampler is not None:
        title, schedule = SAMPLERS[render.sampler].title, SAMPLERS[render.sampler].schedule
    else:
        title, schedule = OWN.get(names.scheduler or "", (names.scheduler or "Base's own", "Automatic"))
    return {"Sampler": title, "Schedule type": schedule if render.schedule is None else SCHEDULES[render.schedule].title}


def _eta(render: Render, names: ModelNames) -> dict[str, object]:
    """A1111 has a key of its own for DDIM's."""
    title = _sampler(render, names)["Sampler"]
    return {"Eta DDIM" if title == "DDIM" else "Eta": number(render.eta) if render.eta else None}


def _guidance(render: Render, names: ModelNames) -> dict[str, object]:
    scale = number(render.guidance or 0.0)
    return {"CFG scale": "1", "Distilled CFG Scale": scale} if names.embedded_guidance else {"CFG scale": scale}


def _hires(render: Render, _names: ModelNames) -> dict[str, object]:
    """The second pass in A1111's keys; a size where its scale gives another one than is drawn."""
    if (hires := render.hires) is None:
        return {}
    first, second = (render.width or 0, render.height or 0), (hires.width, hires.height)
    is_exact = hires.scale is not None and second == tuple(side * hires.scale for side in first)
    upscaler = UPSCALERS[hires.upscaler]
    return {
        "Denoising strength": number(hires.strength),
        "Hires upscale": number(hires.scale) if is_exact and hires.scale is not None else None,
        "Hires resize": None if is_exact else f"{hires.width}x{hires.height}",
        "Hires steps": hires.steps if hires.steps != render.steps else None,
        "Hires upscaler": upscaler.title or hires.upscaler,
        "Hires sampler": SAMPLERS[hires.sampler].title if hires.sampler is not None else None,
        "Hires schedule type": _hires_schedule(hires),
        "Hires CFG Scale": number(hires.guidance) if hires.guidance is not None else None,
        "Hires seed": hires.seed,
    }


def _hires_schedule(hires: Hires) -> str | None:
    if hires.schedule is not None:
        return SCHEDULES[hires.schedule].title
    return SAMPLERS[hires.sampler].schedule if hires.sampler is not None else None


def _mask(render: Render, _names: ModelNames) -> dict[str, object]:
    """The mask in A1111's keys: it redraws from the image itself, all of it at the drawing's size, with a hard edge."""
    if render.mask is None:
        return {}
    return {"Mask blur": "0", "Mask mode": "Inpaint masked", "Masked content": "original", "Inpaint area": "Whole picture"}


def _adapters(render: Render, names: ModelNames) -> dict[str, object]:
    hashes = [
        f"{_tag(name)}: {short}" for name, short in (names.adapters.get(one.reference, ("", "")) for one in render.every_adapter) if short
    ]
    named = {one: _tag(names.adapters.get(one.reference, (one.reference, ""))[0]) for one in render.active if one.is_ranged}
    ranges = [f"{name}: {one.range_text}" for one, name in named.items()]
    return {"Lora hashes": ", ".join(hashes) or None, "Lora ranges": ", ".join(ranges) or None}


def _embeddings(render: Render, names: ModelNames) -> dict[str, object]:
    named = [(_tag(names.embeddings.get(one.reference, one.reference)), (one.sha256 or "")[:12]) for one in render.embeddings]
    return {"TI hashes": ", ".join(f"{name}: {short}" for name, short in named) or None}


def _controls(render: Render, names: ModelNames) -> dict[str, object]:
    return {f"ControlNet {index}": _control(one, names) for index, one in enumerate(render.controls)}


MODULES = {  # preparation: what A1111's ControlNet extension calls it
    "edges": "canny",
    "scribble": "scribble_hed",
    "drawing": "invert (from white bg & black line)",
    "keypoints": "openpose",
    "soft_edges": "softedge_hed",
}


def _control(one: ControlNet, names: ModelNames) -> str:
    """A ControlNet as A1111's ControlNet extension writes it."""
    name, short = names.controls.get(one.reference, (one.reference, ""))
    pairs = {
        "Module": MODULES.get(one.prepare.name, one.prepare.name) if one.prepare else "none",
        "Model": f"{_tag(name)} [{short}]" if short else _tag(name),
        "Weight": number(one.scale),
        "Guidance Start": number(one.start),
        "Guidance End": number(one.end),
        "Control Mode": "Balanced",
    }
    return ", ".join(f"{key}: {value}" for key, value in pairs.items())


# by field of Render; the fields whose value alone is written declare `infotext`
WRITERS: dict[str, Callable[[Render, ModelNames], dict[str, object]]] = {
    "base": _base,
    "vae": _vae,
    "sampler": _sampler,
    "guidance": _guidance,
    "eta": _eta,
    "hires": _hires,
    "mask": _mask,
    "adapters": _adapters,
    "embeddings": _embeddings,
    "controls": _controls,
    "clip_skip": _clip_skip,
    "prompt_dialect": _dialect,
}


def quote(value: object) -> str:
    """The value as it is written in the last line: as JSON when it holds a comma, a colon or a newline."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",\n:") else text


def _tag(name: str) -> str:
    """A name for `<lora:NAME:1>` and the hashes: without the characters of the grammar."""
    return re.sub(r"[:,<>]", "", name)
