"""A second pass of every build in tests/tiny_families, over its latents and over its image."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infer.draw.denoise import Job, denoise, to_image
from infer.draw.draw import draw_image
from infer.draw.samplers import build_scheduler
from infer.draw.start import Start
from infer.hires.passes import enlarged_start
from infer.hires.setting import Hires
from registry.family import Family
from registry.parts import Parts
from tests.tiny import tiny_parts
from tests.tiny_families import builds, module_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # of diffusers' schedulers under numpy 2
]

QUICK = ("sana", "qwen_image")


def _params() -> list[Any]:
    return [pytest.param(one, id=" ".join(one).strip(), marks=() if one[0] in QUICK else pytest.mark.slow) for one in builds()]


def drawn(family: Family, parts: Parts, side: int, start: Start | None = None, steps: int = 2) -> Any:
    job = Job(
        conditional=family.encode_prompts(parts, ["a cat"]),
        unconditional=None,
        guidance=1.0,
        steps=steps,
        scheduler=build_scheduler(parts),
        seed=3,
        height=side,
        width=side,
        start=start,
    )
    return denoise(family, parts, [job])[0]


@pytest.mark.slow
@pytest.mark.parametrize("build", _params())
def test_a_second_pass_is_drawn_at_the_larger_size(build: tuple[str, str]) -> None:
    name, variant = build
    family, parts = tiny_parts(name, **({"variant": variant} if variant else {}))
    side = module_of(name).SIZE
    most = family.largest_side(parts)
    scale = 2 if most is None or most >= 2 * side else 1
    with torch.no_grad():
        first = drawn(family, parts, side)
        for upscaler in ("latent", "lanczos"):
            hires = Hires(scale=scale, width=scale * side, height=scale * side, steps=2, strength=0.5, upscaler=upscaler)
            image = draw_image(family, parts, first) if hires.of_image else None
            start = enlarged_start(hires, parts, latents=first, image=image)
            second = drawn(family, parts, scale * side, start, hires.schedule_steps)
            assert second.shape == (*first.shape[:-2], *(scale * cells for cells in first.shape[-2:])) and second.isfinite().all()
            assert second.dtype == first.dtype and to_image(family.decode(parts, second))[0].size == (scale * side, scale * side)
