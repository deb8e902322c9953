"""SwarmUI's JSON: {"sui_image_params": {...}, "sui_extra_data": {...}, "sui_models": [{name, param, hash}]}.

Its prompts are ComfyUI's with tags, <lora:NAME:DENOISER:TEXT>: the order of the weights is the reverse of A1111's. The hash of a model is
the sha256 of its tensors. (SwarmUI, docs/Image Metadata Format.md, src/Text2Image/T2IParamTypes.cs.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from infer.metadata.fields import Fields, real_number
from infer.metadata.result import ImageMetadata, LoraName, ModelName, bare_name, hex_digits

TAG = re.compile(r"<(\w{1,30})(?:\[[^\[\]<>]{0,100}\])?(?::([^<>]{0,500}))?>")

# what says how the image was saved or shown, or what the other values follow from
IDLE = (
    *("aspectratio", "sidelength", "images", "imageformat", "nopreviews", "automaticvae", "batchsize", "donotsave", "savemetadata"),
    *("date", "generation_time", "used_wildcards", "wildcardseed", "original_prompt", "personalnote", "presets", "loraweights"),
    *("loratencweights", "internalbackendtype", "exactbackendid", "webhooks", "outpathformat", "colordepth", "wildcardseedbehavior"),
)


def read(value: Any, *, source: str) -> ImageMetadata | None:
    """The settings of SwarmUI's object; None of another value."""
    if not isinstance(value, Mapping) or not isinstance(value.get("sui_image_params"), Mapping):
        return None
    fields = Fields(value["sui_image_params"])
    hashes = dict(_hashes(value.get("sui_models")))
    typed = fields.text("prompt") or ""
    prompt, tagged = _without_tags(typed, fields)
    layer = fields.whole("clipstopatlayer")
    found = ImageMetadata(
        tool="SwarmUI",
        source=source,
        version=fields.text("swarm_version"),
        dialect="comfy",
        typed=typed if typed != prompt else None,
        prompt=prompt,
        negative=_without_tags(fields.text("negativeprompt") or "", fields)[0] or None,
        seed=fields.whole("seed"),
        steps=fields.whole("steps"),
        sampler=fields.text("sampler"),
        schedule=fields.text("scheduler"),
        guidance=fields.real("cfgscale"),
        distilled=fields.real("fluxguidancescale"),
        width=fields.whole("width"),
        height=fields.whole("height"),
        clip_skip=None if layer is None else -layer,
        model=_named(fields.text("model"), hashes),
        vae=_named(_no_default(fields.text("vae")), hashes),
        loras=(*_loras(fields, hashes), *(replace(one, digits=hashes.get(bare_name(one.name or ""))) for one in tagged)),
        noise="CPU",
    )
    if (strength := fields.real("initimagecreativity")) is not None or "initimage" in fields.names():
        found = replace(found, strength=strength, init=fields.text("initimage") or "an image")
    refiner = {name: fields.text(name) or "" for name in fields.names() if name.startswith("refiner")}
    fields.drop(*IDLE)
    found = replace(found, unread_loras=tuple(fields.unread_loras))
    return replace(found, hires=refiner if any(name != "refinermodel" for name in refiner) else {}, unread=fields.finish())


def _hashes(models: Any) -> Iterator[tuple[str, str]]:
    """Name of a model without its folder -> the digits of its hash."""
    for one in models if isinstance(models, list) else ():
        if isinstance(one, Mapping) and isinstance(one.get("name"), str) and (digits := hex_digits(one.get("hash"))) is not None:
            yield bare_name(one["name"]), digits


def _named(name: str | None, hashes: Mapping[str, str]) -> ModelName | None:
    return None if not name else ModelName(name=name, digits=hashes.get(bare_name(name)))


def _no_default(name: str | None) -> str | None:
    return None if (name or "").lower() in ("", "none", "automatic", "(none)") else name


def _list(value: Any) -> list[str]:
    """The items of a list, or of a text with commas between them."""
    items = value if isinstance(value, list) else str(value).split(",") if isinstance(value, str | int | float) else []
    return [str(item).strip() for item in items if str(item).strip()]


def _loras(fields: Fields, hashes: Mapping[str, str]) -> Iterator[LoraName]:
    names, weights, text_weights = (_list(fields.take(name)) for name in ("loras", "loraweights", "loratencweights"))
    for place, name in enumerate(names):
        weight = real_number(weights[place]) if place < len(weights) else 1.0
        apart = real_number(text_weights[place]) if place < len(text_weights) else None
        if weight is None:
            fields.report_lora("loraweights", f"{name}: {weights[place]}", "it is no number")
            continue
        yield LoraName(name=name, digits=hashes.get(bare_name(name)), weight=weight, text_weight=None if apart == weight else apart)


def _without_tags(text: str, fields: Fields) -> tuple[str, list[LoraName]]:
    """(the text without its tags, the LoRAs they name); every other tag is reported."""
    found: list[LoraName] = []

    def taken(match: re.Match[str]) -> str:
        name, *weights = (match[2] or "").split(":")
        numbers = [real_number(weight) for weight in weights]
        if match[1].lower() != "lora" or not name or len(weights) > 2 or None in numbers:
            report = fields.report_lora if match[1].lower() == "lora" else fields.report
            report("prompt", match[0], "this tag is not drawn with here")
            return ""
        weight, apart = (*[number for number in numbers if number is not None], 1.0)[0], numbers[1] if len(numbers) > 1 else None
        found.append(LoraName(name=name, weight=weight, text_weight=None if apart == weight else apart))
        return ""

    return TAG.sub(taken, text).strip(), found
