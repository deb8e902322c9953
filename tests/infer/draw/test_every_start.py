"""Image-to-image and inpainting of every family in tests/tiny_families that diffusers has pipelines for, in float32 on the CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from infer.draw.start import Start
from tests.infer.draw.test_every_family import TOLERANCE, Build, apart, drawn, job
from tests.tiny import plain_pipeline, tiny_parts
from tests.tiny_families import builds, module_of

FAMILIES_HERE = sorted({name for name, _variant in builds() if hasattr(module_of(name), "STARTS")})
STEPS = 5


@cache
def build(family: str) -> Build:
    """A tiny model with a VAE that is sure to a third of a deviation: an untrained one's samples are thousands wide.

    The pipeline has the very same VAE: a copy at other addresses differs from it by 3e-5.
    """
    import torch

    seam, parts = tiny_parts(family)
    pipeline = plain_pipeline(family)
    vae: Any = parts.vae
    pipeline.vae = vae
    last = getattr(vae, "quant_conv", None) or vae.encoder.conv_out
    channels = last.out_channels // 2
    with torch.no_grad():
        last.weight[channels:], last.bias[channels:] = 0.0, -2.0
    return (family, seam, parts, pipeline)


def actual(family: str, strength: float, *, masked: bool = False, prompt: str = "a red apple") -> Any:
    import numpy
    import torch

    image, mask = (numpy.asarray(image, dtype=numpy.float32) / 255 for image in images(module_of(family).SIZE))
    pixels = 2 * torch.from_numpy(image).permute(2, 0, 1)[None] - 1
    one = job(build(family), prompt, steps=STEPS)
    one.start = Start(pixels=pixels, strength=strength, mask=torch.from_numpy(mask)[None, None] if masked else None)
    return drawn(build(family), [one])[0]


def images(size: int) -> tuple[Any, Any]:
    """An image, and a mask that redraws its left half."""
    import numpy
    from PIL import Image

    mask = Image.new("L", (size, size), 0)
    mask.paste(255, (0, 0, size // 2, size))
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=numpy.uint8)), mask


def plain(family: str, strength: float, *, masked: bool = False) -> Any:
    import diffusers

    from infer.draw.samplers import build_scheduler

    module = module_of(family)
    _name, _family, parts, base = build(family)
    pipeline = getattr(diffusers, module.STARTS[masked])(**base.components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(parts)
    image, mask = images(module.SIZE)
    return module.latents(
        pipeline,
        prompt="a red apple",
        negative=None,
        guidance=5.0,
        steps=STEPS,
        size=module.SIZE,
        seed=7,
        image=image,
        strength=strength,
        **({"mask_image": mask} if masked else {}),
    )


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_the_pipeline_s_image_to_image(family: str, strength: float) -> None:
    assert apart(actual(family, strength), plain(family, strength)) <= TOLERANCE


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_the_pipeline_s_inpainting(family: str, strength: float) -> None:
    latents = actual(family, strength, masked=True)
    assert apart(latents, plain(family, strength, masked=True)) <= TOLERANCE
    right, other = (image.chunk(2, dim=-1)[1] for image in (latents, actual(family, strength, masked=True, prompt="two cats")))
    assert right.equal(other)  # what the mask does not show is the start's own


@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_the_strength_not_given_is_the_pipelines_own(family: str) -> None:
    import inspect

    import diffusers

    _name, seam, _parts, _pipeline = build(family)
    for name, strength in zip(module_of(family).STARTS, (seam.strength, seam.inpaint_strength), strict=True):
        assert inspect.signature(getattr(diffusers, name).__call__).parameters["strength"].default == strength
