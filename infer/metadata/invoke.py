"""InvokeAI's metadata: `invokeai_metadata` of versions 3 and later, `sd-metadata` of version 2.

Its prompts are compel's: (words)1.3, words++, a plus being 1.1 and a minus 0.9. They are spelt in ComfyUI's grammar here, whose arithmetic
is the same above 1: a state is moved away from that of the empty prompt. (InvokeAI 6, invokeai/app/invocations/metadata.py; compel 2.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from infer.metadata.fields import Fields, real_number
from infer.metadata.result import ControlName, ImageMetadata, LoraName, ModelName, hex_digits
from infer.metadata.weighted_text import Weighted, spelt

IDLE = (
    *("app_version", "generation_mode", "rand_device", "_canvas_objects", "ref_images", "canvas_v2_metadata", "regions"),
    *("positive_style_prompt", "negative_style_prompt", "seamless_x", "seamless_y", "t5_encoder", "clip_embed_model", "dype_preset"),
)
FUNCTIONS = re.compile(r"\)\s*\.\s*(and|blend|swap)\s*\(", re.IGNORECASE)
PART = re.compile(r"\\[()+\-\\]|\(|\)(\+{1,20}|-{1,20}|\d{1,3}(?:\.\d{1,6})?)?|([^\s()\\]{1,200}?)(\+{1,20}|-{1,20})(?=[\s,).]|$)")
NEGATIVE = re.compile(r"\[([^\[\]]*)\]")


def read(value: Any, *, source: str) -> ImageMetadata | None:
    """The settings of `invokeai_metadata`; None of another value."""
    if not isinstance(value, Mapping) or not ({"positive_prompt", "app_version", "cfg_scale"} & value.keys()):
        return None
    fields = Fields(value)
    model = _model(fields.take("model"))
    compel = (
        not isinstance(value.get("model"), Mapping) or str(value["model"].get("base", value["model"].get("base_model", "sd")))[:2] == "sd"
    )
    skip = fields.whole("clip_skip")
    found = ImageMetadata(
        tool="InvokeAI",
        source=source,
        version=fields.text("app_version"),
        dialect="comfy" if compel else "plain",
        typed=value.get("positive_prompt") if isinstance(value.get("positive_prompt"), str) else None,
        prompt=_prompt(fields, "positive_prompt", compel),
        negative=_prompt(fields, "negative_prompt", compel) or None,
        seed=fields.whole("seed"),
        steps=fields.whole("steps"),
        sampler=fields.text("scheduler"),
        guidance=fields.real("cfg_scale"),
        distilled=fields.real("guidance"),
        rescale=fields.real("cfg_rescale_multiplier"),
        width=fields.whole("width"),
        height=fields.whole("height"),
        clip_skip=None if not skip else skip + 1,
        model=model,
        vae=_model(fields.take("vae")),
        loras=tuple(_loras(fields)),
        controls=tuple(_controls(fields)),
        noise=(fields.text("rand_device") or "cpu").upper(),
    )
    if (strength := fields.real("strength")) is not None or "init_image" in fields.names():
        image = fields.take("init_image")
        found = replace(found, strength=strength, init=image if isinstance(image, str) else "an image")
    hires = {name: fields.text(name) or "" for name in fields.names() if name.startswith("hrf_") and value[name]}
    fields.drop(*IDLE, *(name for name in value if str(name).startswith("hrf_")))
    return replace(found, hires=hires, unread=fields.finish())


def read_older(value: Any, *, source: str) -> ImageMetadata | None:
    """The settings of `sd-metadata`; None of another value. What is in [brackets] is the negative prompt."""
    if not isinstance(value, Mapping) or not isinstance(value.get("image"), Mapping):
        return None
    fields, whole = Fields(value["image"]), Fields(value)
    prompts = fields.take("prompt")
    rows = prompts if isinstance(prompts, list) else [{"prompt": prompts}]
    texts = [row["prompt"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("prompt"), str)]
    if len(texts) > 1:
        fields.report("prompt", texts, "one prompt is drawn with here, the first")
    text = texts[0] if texts else ""
    found = ImageMetadata(
        tool="InvokeAI",
        source=source,
        version=whole.text("app_version"),
        dialect="comfy",
        prompt=_comfy(NEGATIVE.sub("", text).strip(), fields),
        negative=", ".join(_comfy(part.strip(), fields) for part in NEGATIVE.findall(text)) or None,
        seed=fields.whole("seed"),
        steps=fields.whole("steps"),
        sampler=fields.text("sampler"),
        guidance=fields.real("cfg_scale"),
        width=fields.whole("width"),
        height=fields.whole("height"),
        model=ModelName(name=whole.text("model_weights"), digits=hex_digits(whole.take("model_hash"))),
        noise="GPU",
    )
    fields.drop("type", "postprocessing")
    return replace(found, unread=fields.finish(idle=(None, "", False, 0, 0.0)))


def _model(value: Any) -> ModelName | None:
    if not isinstance(value, Mapping):
        return ModelName(name=value) if isinstance(value, str) and value else None
    name = next((value[key] for key in ("name", "model_name") if isinstance(value.get(key), str)), None)
    digits = hex_digits(value.get("hash"))
    return ModelName(name=name, digits=digits) if name or digits else None


def _loras(fields: Fields) -> Iterator[LoraName]:
    for row in fields.rows("loras"):
        model = _model(row.get("model", row.get("lora"))) if isinstance(row, Mapping) else None
        weight = real_number(row.get("weight", 1.0)) if isinstance(row, Mapping) else None
        if model is None or weight is None:
            fields.report("loras", row, "it has no name, or no weight")
        elif row.get("is_enabled") is not False:
            yield LoraName(name=model.name, digits=model.digits, weight=weight)


def _controls(fields: Fields) -> Iterator[ControlName]:
    for row in fields.rows("controlnets"):
        model = _model(row.get("control_model")) if isinstance(row, Mapping) else None
        if model is None:
            fields.report("controlnets", row, "it names no model")
            continue
        weight, start, end = (real_number(row.get(name)) for name in ("control_weight", "begin_step_percent", "end_step_percent"))
        image = row.get("image")
        yield ControlName(
            name=model.name,
            digits=model.digits,
            scale=1.0 if weight is None else weight,
            start=start or 0.0,
            end=1.0 if end is None else end,
            image=image.get("image_name") if isinstance(image, Mapping) and isinstance(image.get("image_name"), str) else None,
        )


def _prompt(fields: Fields, name: str, compel: bool) -> str | None:
    text = fields.text(name)
    return _comfy(text, fields) if compel and text else text


def _comfy(text: str, fields: Fields) -> str:
    """A prompt of compel in ComfyUI's grammar."""
    if FUNCTIONS.search(text):
        fields.report("prompt", text, "compel's .and(), .blend() and .swap() are not read here: they are letters")
    return spelt(compel_pieces(text))


def compel_pieces(text: str) -> list[Weighted]:
    """The pieces of a prompt of compel; weights multiply where they are nested."""
    found: list[Weighted] = []
    opened: list[int] = []
    place = 0
    for match in PART.finditer(text):
        found.append(Weighted(text[place : match.start()]))
        place = match.end()
        if match[0].startswith("\\"):
            found.append(Weighted(match[0][1]))
        elif match[0] == "(":
            opened.append(len(found))
        elif match[2] is not None:
            found.append(Weighted(match[2], _factor(match[3])))
        elif opened:
            start = opened.pop()
            found[start:] = [Weighted(one.text, one.weight * _factor(match[1])) for one in found[start:]]
        else:
            found.append(Weighted(match[0]))
    return [*found, Weighted(text[place:])]


def _factor(mark: str | None) -> float:
    if not mark:
        return 1.0
    if mark[0] in "+-":
        return (1.1 if mark[0] == "+" else 0.9) ** len(mark)
    return float(mark)
