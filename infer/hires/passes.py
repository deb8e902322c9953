"""The denoisings of an image: one as a rule, and the second pass behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infer.draw.render import Render
from infer.draw.start import Start
from infer.hires.setting import Hires
from infer.hires.upscalers import enlarged_image, enlarged_latents
from registry.parts import Parts

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One denoising. `render` is what it draws by itself: its own size, sampler, guidance, and all steps of its schedule.

    `walked` are the last steps of them that are taken (None: all, or by the `strength` of an init image), and `key` is what its latents
    are kept by.
    """

    render: Render
    walked: int | None
    key: str


def passes_of(render: Render) -> tuple[Pass, ...]:
    """The denoisings of a resolved Render in their order."""
    if (hires := render.hires) is None:
        return (Pass(render=render, walked=None, key=render.latents_key()),)
    first = first_pass(render)
    return (
        Pass(render=first, walked=None, key=first.latents_key()),
        Pass(render=second_pass(render, hires), walked=hires.steps, key=render.latents_key()),
    )


def first_pass(render: Render) -> Render:
    """The Render without its second pass: what several second passes share."""
    return replace(render, hires=None)


def second_pass(render: Render, hires: Hires) -> Render:
    """The second pass as a Render of its own; only with the first one's latents does it draw the image."""
    if hires.sampler is not None:  # another sampler has its own schedule, unless one is given
        render = replace(render, sampler=hires.sampler, schedule=None, sigma_min=None, sigma_max=None, eta=None)
    return replace(
        render,
        hires=None,
        width=hires.width,
        height=hires.height,
        steps=hires.schedule_steps,
        schedule=render.schedule if hires.schedule is None else hires.schedule,
        guidance=render.guidance if hires.guidance is None else hires.guidance,
        seed=render.seed if hires.seed is None else hires.seed,
        guided=hires.guided,
    )


def enlarged_start(hires: Hires, parts: Parts, *, latents: Tensor | None = None, image: Image | None = None) -> Start:
    """Where the second pass of a resolved Render starts: the first one's `latents` (1, C, H, W), or its decoded `image`, enlarged."""
    from infer.draw.input_images import to_pixels

    wide, high = hires.width or 0, hires.height or 0
    if image is not None:
        pixels = 2 * to_pixels(enlarged_image(image, hires.upscaler, height=high, width=wide)) - 1
        return Start(pixels=pixels, strength=hires.strength, walked=hires.steps)
    assert latents is not None
    cells = enlarged_latents(latents, hires.upscaler, height=high // parts.latent_factor, width=wide // parts.latent_factor)
    return Start(latents=cells, strength=hires.strength, walked=hires.steps)
