"""Fooocus' own JSON scheme; its A1111 scheme is read as A1111's text. (Fooocus 2.5, modules/meta_parser.py.)"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from infer.metadata.fields import Fields, real_number
from infer.metadata.result import ImageMetadata, LoraName, ModelName, hex_digits

SIZE = re.compile(r"\(?\s*'?(\d{1,6})'?\s*[,x×*]\s*'?(\d{1,6})'?\s*\)?")
IDLE = (
    "created_by",
    "metadata_scheme",
    "version",
    "performance",
    "styles",
    "prompt_expansion",
    "image_number",
    "prompt",
    "negative_prompt",
)
OWN_VAE = "default (model)"


def read(value: Any, *, source: str) -> ImageMetadata | None:
    """The settings of Fooocus' object; None of another value."""
    if not isinstance(value, Mapping) or "base_model" not in value or "prompt" not in value:
        return None
    fields = Fields(value)
    version = fields.text("version")
    width, height = _size(fields)
    vae = fields.text("vae") or ""
    found = ImageMetadata(
        tool="Fooocus",
        source=source,
        version=version,
        dialect="a1111",  # its readme: A1111's reweighting
        typed=prompt if isinstance(prompt := value.get("prompt"), str) else None,
        prompt=_texts(fields, "full_prompt", value.get("prompt")),
        negative=_texts(fields, "full_negative_prompt", value.get("negative_prompt")) or None,
        seed=fields.whole("seed"),
        steps=fields.whole("steps"),
        sampler=fields.text("sampler"),
        schedule=fields.text("scheduler"),
        guidance=fields.real("guidance_scale"),
        width=width,
        height=height,
        clip_skip=fields.whole("clip_skip"),
        model=ModelName(name=fields.text("base_model"), digits=hex_digits(fields.take("base_model_hash"))),
        vae=ModelName(name=vae) if vae.lower() not in ("", "none", OWN_VAE) else None,
        loras=tuple(_loras(fields)),
        noise="CPU",
    )
    fields.drop(*IDLE)
    return replace(found, unread=fields.finish(idle=(None, "", False, "None")))


def _texts(fields: Fields, name: str, plain: Any) -> str:
    """The texts that were encoded, styles and expansion in them; else the prompt as it was typed."""
    texts = [text for text in fields.rows(name) if isinstance(text, str) and text]
    if len(texts) > 1:
        fields.report(name, texts, "several texts are encoded apart there, and as one here")
    return ", ".join(texts) or (plain if isinstance(plain, str) else "")


def _size(fields: Fields) -> tuple[int | None, int | None]:
    text = fields.text("resolution")
    match = SIZE.fullmatch(text.strip()) if text else None
    if text and match is None:
        fields.report("resolution", text, "expected (WIDTH, HEIGHT)")
    return (int(match[1]), int(match[2])) if match else (None, None)


def _loras(fields: Fields) -> Iterator[LoraName]:
    """Of `loras`, [[name, weight, hash]], else of `lora_combined_1`, "name : weight"."""
    rows = [row for row in fields.rows("loras") if isinstance(row, list) and len(row) >= 2 and isinstance(row[0], str)]
    for name in [name for name in fields.names() if name.startswith("lora_combined_")]:
        parts = (fields.text(name) or "").rsplit(" : ", 1)
        rows += [parts] if len(parts) == 2 and not any(row[0] == parts[0] for row in rows) else []
    for row in rows:
        weight = real_number(row[1])
        if weight is None or row[0] == "None":
            if row[0] != "None":
                fields.report("loras", row, "it has no weight")
            continue
        yield LoraName(name=row[0], weight=weight, digits=hex_digits(row[2]) if len(row) > 2 else None)
