"""A JSON text of any other program that has a prompt, under the names that most of them use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infer.metadata.fields import Fields
from infer.metadata.result import ImageMetadata, ModelName


def read(value: Any, *, source: str) -> ImageMetadata | None:
    """The settings of an object with a prompt; None of another value."""
    if not isinstance(value, Mapping) or not isinstance(value.get("prompt", value.get("positive_prompt")), str):
        return None
    fields = Fields(value)
    model = fields.text("model", "model_name", "use_stable_diffusion_model")
    found = ImageMetadata(
        tool="another program",
        source=source,
        prompt=fields.text("prompt", "positive_prompt"),
        negative=fields.text("negative_prompt", "negativePrompt", "uc") or None,
        seed=fields.whole("seed"),
        steps=fields.whole("steps", "num_inference_steps"),
        sampler=fields.text("sampler", "sampler_name"),
        guidance=fields.real("guidance_scale", "cfg_scale", "scale"),
        width=fields.whole("width"),
        height=fields.whole("height"),
        model=None if model is None else ModelName(name=model),
    )
    return replace(found, unread=fields.finish())
