"""A1111's Hires. fix in its text: `Hires upscale` or `Hires resize`, and what the second pass has of its own.

(AUTOMATIC1111/stable-diffusion-webui 1.10, modules/processing.py, StableDiffusionProcessingTxt2Img; Forge adds `Hires CFG Scale`.)
"""

from __future__ import annotations

import re

from infer.metadata.fields import Fields
from infer.metadata.result import SecondPass

SIZE = re.compile(r"\s*(\d{1,6})\s*x\s*(\d{1,6})\s*")
STRENGTH = 0.7  # A1111's own, where none is written
SAME = ("Use same sampler", "Use same scheduler", "Use same checkpoint", "Use same choices", "")
OWN = ("Hires checkpoint", "Hires prompt", "Hires negative prompt", "Hires Module 1", "Hires Distilled CFG Scale")
NOT_DRAWN = "the second pass is drawn with what the first one has"


def second_pass(fields: Fields, strength: float | None) -> SecondPass | None:
    """The second pass of the fields; None where they say no size that is larger. What it has of its own and not here is reported."""
    size = fields.text("Hires resize")
    match = SIZE.fullmatch(size) if size else None
    if size and match is None:
        fields.report("Hires resize", size, "expected WIDTHxHEIGHT")
    wide, high = (int(match[1]), int(match[2])) if match else (None, None)
    scale = fields.real("Hires upscale")
    for name in OWN:
        if (given := fields.text(name)) is not None and given not in SAME:
            fields.report(name, given, NOT_DRAWN)
    found = SecondPass(
        scale=None if wide or high else scale,
        width=wide,
        height=high,
        upscaler=fields.text("Hires upscaler"),
        steps=fields.whole("Hires steps") or None,  # 0 is as many as the first pass
        strength=STRENGTH if strength is None else strength,
        sampler=_own(fields.text("Hires sampler")),
        schedule=_own(fields.text("Hires schedule type")),
        guidance=fields.real("Hires CFG Scale") or None,
        seed=fields.whole("Hires seed"),
    )
    return found if found.scale or wide or high else None


def _own(name: str | None) -> str | None:
    return None if name in SAME else name
