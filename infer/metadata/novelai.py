"""NovelAI's Comment, a JSON text; its prompts' weights in A1111's grammar: {x} is 1.05, [x] 1 / 1.05, 1.5::x:: is 1.5.

Round brackets have no meaning there. The same text may be hidden in the lowest bits of the alpha channel (infer/metadata/stealth.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infer.metadata.fields import Fields
from infer.metadata.result import ImageMetadata, ModelName
from infer.metadata.weighted_text import Weighted, spelt

STEP = 1.05
PART = re.compile(r"[{}\[\]]|(-?\d{1,3}(?:\.\d{1,4})?)?::")
SOURCE = re.compile(r"(.*?)\s+([0-9A-F]{8})")
IDLE = ("n_samples", "request_type", "signed_hash", "version", "extra_passthrough_testing", "stream", "hide_debug_overlay", "legacy")
USUAL = {"uncond_scale": 1.0, "cfg_rescale": 0.0, "controlnet_strength": 1.0, "dynamic_thresholding_mimic_scale": 10.0}


def read(value: Any, texts: Mapping[str, str], *, source: str) -> ImageMetadata | None:
    """The settings of NovelAI's Comment, with the texts beside it; None of another value."""
    if not isinstance(value, Mapping) or "sampler" not in value or not ({"uc", "v4_prompt", "noise_schedule"} & value.keys()):
        return None
    fields = Fields({name: one for name, one in value.items() if USUAL.get(str(name)) != one})
    where = SOURCE.fullmatch(texts.get("Source", "").strip())
    prompt, negative = fields.text("prompt") or texts.get("Description", ""), fields.text("uc") or ""
    found = ImageMetadata(
        tool="NovelAI",
        source=source,
        version=texts.get("Source") or texts.get("Software"),
        dialect="a1111",
        typed=prompt,
        prompt=spelt(novelai_pieces(prompt), square=True),
        negative=spelt(novelai_pieces(negative), square=True) or None,
        seed=fields.whole("seed"),
        steps=fields.whole("steps"),
        sampler=fields.text("sampler"),
        schedule=fields.text("noise_schedule"),
        guidance=fields.real("scale"),
        rescale=fields.real("cfg_rescale"),
        width=fields.whole("width"),
        height=fields.whole("height"),
        model=ModelName(name=where[1], digits=where[2].lower()) if where else None,
        noise="GPU",
    )
    if (strength := fields.real("strength")) is not None and "noise" in value:
        found = replace(found, strength=strength, init="an image that was redrawn (img2img)")
    for name, text in (("v4_prompt", prompt), ("v4_negative_prompt", negative)):
        _characters(fields, name, text)
    fields.drop(*IDLE)
    return replace(found, unread=fields.finish(idle=(None, "", False, 0, 0.0)))


def _characters(fields: Fields, name: str, plain: str) -> None:
    """The prompts of single characters, which are encoded apart."""
    caption = fields.table(name).get("caption")
    if isinstance(caption, Mapping):
        if caption.get("char_captions"):
            fields.report(f"{name} char_captions", caption["char_captions"], "prompts of single characters are not drawn with here")
        if caption.get("base_caption") not in (None, plain):
            fields.report(f"{name} base_caption", caption["base_caption"], "it is another text than the prompt")


def novelai_pieces(text: str) -> list[Weighted]:
    """The pieces of a prompt. A bracket that nothing closes acts up to the end; a number with :: acts up to the next ::."""
    found: list[Weighted] = []
    braces = 0  # { less [
    factor = 1.0
    place = 0
    for match in PART.finditer(text):
        found.append(Weighted(text[place : match.start()], factor * STEP**braces))
        place = match.end()
        if match[0].endswith("::"):
            factor = 1.0 if match[1] is None else float(match[1])
        else:
            braces = max(-50, min(50, braces + (1 if match[0] in "{]" else -1)))
    return [*found, Weighted(text[place:], factor * STEP**braces)]
