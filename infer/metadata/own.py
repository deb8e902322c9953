"""Our own text: the whole Render of an image that was drawn here."""

from __future__ import annotations

from infer.draw.render import Render
from infer.hires.setting import Hires
from infer.metadata.result import ControlName, ImageMetadata, LoraName, ModelName, SecondPass
from registry.errors import LoomError
from registry.plain_values import from_json


def read_own(text: str) -> ImageMetadata | None:
    """The settings of our text; None of one that cannot be read."""
    try:
        whole = from_json(text)
        render = Render.from_json(whole["render"])
    except (ValueError, KeyError, TypeError, AttributeError, LoomError):
        return None
    return ImageMetadata(
        tool="LoRA Loom",
        source="loraloom",
        version=str(whole.get("made_by", "")) or None,
        dialect=render.prompt_dialect,
        prompt=render.prompt,
        negative=render.negative,
        seed=render.seed,
        steps=render.steps,
        sampler=render.sampler,
        schedule=render.schedule,
        guidance=render.guidance,
        rescale=render.rescale,
        eta=render.eta,
        sigma_min=render.sigma_min,
        sigma_max=render.sigma_max,
        width=render.width,
        height=render.height,
        model=ModelName(name=render.base, digits=render.base_sha256),
        vae=None if render.vae is None else ModelName(name=render.vae, digits=render.vae_sha256),
        loras=tuple(
            LoraName(
                name=one.reference,
                digits=one.sha256,
                weight=one.weight,
                text_weight=one.text_weight,
                blocks=one.blocks,
                start=one.start,
                end=one.end,
            )
            for one in render.every_adapter
        ),
        embeddings=tuple(ModelName(name=one.reference, digits=one.sha256) for one in render.embeddings),
        controls=tuple(
            ControlName(
                name=one.reference,
                digits=one.sha256,
                scale=one.scale,
                start=one.start,
                end=one.end,
                module=None if one.prepare is None else str(one.prepare),
                image=one.picture.path,
            )
            for one in render.controls
        ),
        second=None if render.hires is None else _second(render.hires),
        init=None if render.init is None else render.init.path,
        strength=render.strength,
        noise="CPU",
        render=render,
    )


def _second(hires: Hires) -> SecondPass:
    names = ("scale", "width", "height", "upscaler", "steps", "strength", "sampler", "schedule", "guidance", "seed")
    return SecondPass(**{name: getattr(hires, name) for name in names})
