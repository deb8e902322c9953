"""The second pass against diffusers' own pipelines: text to image, enlarged, then their image-to-image, in float32 on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from infer.draw.denoise import to_image
from infer.draw.draw import draw_image
from infer.draw.samplers import build_scheduler
from infer.hires.passes import enlarged_start
from infer.hires.setting import Hires
from infer.hires.upscalers import UPSCALERS, enlarged_latents
from tests.infer.draw.test_denoise import STEPS, T5_TOKENS, apart, drawn, job, plain
from tests.infer.draw.test_start import TOLD, model
from tests.tiny import SIZES

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def second(family: str, hires: Hires, first: Any) -> Any:
    """Our second pass behind these latents."""
    _name, seam, parts, _pipeline = model(family)
    image = draw_image(seam, parts, first) if hires.of_image else None
    one = job(model(family), steps=hires.schedule_steps, size=int(hires.width or 0))
    one.start = enlarged_start(hires, parts, latents=first, image=image)
    return drawn(model(family), [one])[0]


def of_diffusers(family: str, enlarged: Any, *, size: int) -> Any:
    """The latents (1, C, H, W) of diffusers' image-to-image pipeline on enlarged latents, or on an enlarged image."""
    import diffusers

    _name, _seam, parts, base = model(family)
    components = {key: part for key, part in base.components.items() if key not in ("image_encoder", "feature_extractor", "safety_checker")}
    if family == "sd1":
        components |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    extra = {"max_sequence_length": T5_TOKENS, "height": size, "width": size} if family == "flux1" else {}
    pipeline = getattr(diffusers, TOLD[family][0])(**components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(parts)
    latents = pipeline(
        prompt="a red apple",
        image=enlarged,
        strength=0.5,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
        **extra,
    ).images
    return pipeline._unpack_latents(latents, size, size, pipeline.vae_scale_factor) if latents.ndim == 3 else latents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "upscaler"), [*(("sd1", name) for name in UPSCALERS), ("sdxl", "latent"), ("sdxl", "lanczos"), ("flux1", "lanczos")]
)
def test_it_is_the_pipeline_s_image(family: str, upscaler: str) -> None:
    _name, seam, parts, _pipeline = model(family)
    size = 2 * SIZES[family]
    hires = Hires(scale=2.0, width=size, height=size, upscaler=upscaler, steps=STEPS // 2, strength=0.5)
    first = plain(model(family))
    if hires.of_image:
        image = to_image(seam.decode(parts, first))[0]
        enlarged: Any = image.resize((size, size), Image.Resampling[UPSCALERS[upscaler].mode])
    else:
        how = UPSCALERS[upscaler]
        enlarged = torch.nn.functional.interpolate(first, scale_factor=2.0, mode=how.mode, **({"antialias": True} if how.antialias else {}))
    expected = of_diffusers(family, enlarged, size=size)
    actual = second(family, hires, drawn(model(family), [job(model(family))])[0])
    assert apart(actual, expected) <= 1e-4 * max(1.0, float(expected.abs().max()))
    mine, its = (to_image(seam.decode(parts, latents))[0] for latents in (actual, expected))
    assert mine.size == (size, size) and _of_255(mine, its) <= 1 and len(set(mine.tobytes())) > 2


def _of_255(one: Any, other: Any) -> int:
    import numpy

    return int(abs(numpy.asarray(one, dtype=int) - numpy.asarray(other, dtype=int)).max())


def test_the_steps_are_walked_as_in_a1111_and_comfyui() -> None:
    """7 steps at 0.6 are the last 7 of int(7 / 0.6) = 11, where diffusers' strength would walk 6 of them."""
    _name, _seam, parts, _pipeline = model("sd1")
    side = SIZES["sd1"]
    hires = Hires(scale=1.0, width=side, height=side, steps=7, strength=0.6)
    assert hires.schedule_steps == 11
    one = job(model("sd1"), steps=11, sampler="euler")
    one.start = enlarged_start(hires, parts, latents=torch.zeros(1, 4, side // parts.latent_factor, side // parts.latent_factor))
    done: list[tuple[int, int]] = []
    drawn(model("sd1"), [one], on_step=lambda at, of: done.append((at, of)))
    assert done[-1] == (7, 7)


def test_latents_are_enlarged_as_torch_does_it_in_half_precision_too() -> None:
    latents = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert enlarged_latents(latents, "latent_nearest_exact", height=4, width=4)[0, 0, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert enlarged_latents(latents, "latent", height=4, width=4)[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
    half, whole = (enlarged_latents(latents.to(dtype), "latent_bicubic", height=4, width=4) for dtype in (torch.bfloat16, torch.float32))
    assert half.dtype == torch.bfloat16 and torch.equal(half, whole.to(torch.bfloat16))
