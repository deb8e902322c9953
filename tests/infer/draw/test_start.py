"""Image-to-image and inpainting against diffusers' own pipelines, on the tiny models, in float32 on the CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from infer.draw.samplers import SAMPLERS
from registry.errors import Refused
from tests.infer.draw.test_control import image, net_of, pixels, steering
from tests.infer.draw.test_denoise import T5_TOKENS, TOLERANCE, Model, apart, apart_of_widest, drawn, job
from tests.tiny import FAMILIES_HERE, SIZES, plain_pipeline, tiny_parts
from tests.tiny_families import builds

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

TOLD = {
    "sd1": ("StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionControlNetImg2ImgPipeline"),
    "sdxl": ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline", "StableDiffusionXLControlNetImg2ImgPipeline"),
    "flux1": ("FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxControlNetImg2ImgPipeline"),
}


@cache
def model(family: str) -> Model:
    """The tiny model with a VAE that is sure to a third of a deviation: an untrained one's samples are thousands wide.

    The pipeline has the very same VAE: a copy at other addresses differs from it by 3e-5.
    """
    import torch

    seam, parts = tiny_parts(family)
    pipeline = plain_pipeline(family)
    vae = pipeline.vae = parts.vae
    last: Any = vae.encoder.conv_out if vae.quant_conv is None else vae.quant_conv
    channels = last.out_channels // 2
    with torch.no_grad():
        last.weight[channels:], last.bias[channels:] = 0.0, -2.0
    return (family, seam, parts, pipeline)


def half(family: str) -> Any:
    """A mask that redraws the left half."""
    from PIL import Image

    size = SIZES[family]
    mask = Image.new("L", (size, size), 0)
    mask.paste(255, (0, 0, size // 2, size))
    return mask


def start(family: str, strength: float, *, masked: bool = False) -> Any:
    import numpy
    import torch

    from infer.draw.start import Start

    mask = torch.from_numpy(numpy.asarray(half(family), dtype=numpy.float32) / 255)[None, None] if masked else None
    return Start(pixels=2 * pixels(image(family)) - 1, strength=strength, mask=mask)


def actual(family: str, strength: float, *, masked: bool = False, steerings: Any = (), **changes: Any) -> Any:
    one = job(model(family), **{"steps": 7} | changes)
    one.start, one.steerings = start(family, strength, masked=masked), steerings
    return drawn(model(family), [one])[0]


def plain(family: str, strength: float, *, masked: bool = False, sampler: str | None = None, net: Any = None, steps: int = 7) -> Any:
    """The latents (1, C, H, W) of diffusers' pipeline."""
    import diffusers
    import torch

    from infer.draw.samplers import build_scheduler

    _name, _family, parts, base = model(family)
    name = TOLD[family][2 if net is not None else 1 if masked else 0]
    components = {key: part for key, part in base.components.items() if key not in ("image_encoder", "feature_extractor", "safety_checker")}
    if family == "sd1":
        components |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    extra: dict[str, Any] = {"mask_image": half(family)} if masked else {}
    if family == "flux1":
        extra["max_sequence_length"] = T5_TOKENS
    if net is not None:
        components["controlnet"] = net
        extra |= {"control_image": image(family, 1), "controlnet_conditioning_scale": 0.7}
    if masked or net is not None or family == "flux1":
        extra |= {"height": SIZES[family], "width": SIZES[family]}
    pipeline = getattr(diffusers, name)(**components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(parts, sampler)
    latents = pipeline(
        prompt="a red apple",
        image=image(family),
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
        **extra,
    ).images
    size = SIZES[family]
    return pipeline._unpack_latents(latents, size, size, pipeline.vae_scale_factor) if latents.ndim == 3 else latents


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_the_pipeline_s_image_to_image(family: str, strength: float) -> None:
    assert apart(actual(family, strength), plain(family, strength)) <= TOLERANCE


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_the_pipeline_s_inpainting(family: str, strength: float) -> None:
    latents = actual(family, strength, masked=True)
    assert apart(latents, plain(family, strength, masked=True)) <= TOLERANCE
    left, right = latents.chunk(2, dim=-1)
    other_left, other_right = actual(family, strength, masked=True, prompt="two cats on a mat").chunk(2, dim=-1)
    assert apart(left, other_left) > 1e-3 and apart(right, other_right) == 0.0  # what is not masked is the start's own latents


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sampler", ["euler_a", "heun", "dpmpp_2m_karras"])  # one draws noise, one calls twice a step, one remembers
def test_samplers(sampler: str, masked: bool) -> None:
    assert apart(actual("sd1", 0.6, masked=masked, sampler=sampler), plain("sd1", 0.6, masked=masked, sampler=sampler)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_of_sdxl(sampler: str, masked: bool) -> None:
    assert apart(actual("sdxl", 0.6, masked=masked, sampler=sampler), plain("sdxl", 0.6, masked=masked, sampler=sampler)) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_a_start_and_a_controlnet_together(family: str) -> None:
    latents = actual(family, 0.6, steerings=(steering(family, hint=1, scale=0.7),))
    assert apart(latents, plain(family, 0.6, net=net_of(family))) <= TOLERANCE


def test_starts_share_forwards_with_images_from_noise() -> None:
    from infer.draw.denoise import Counter, denoise

    jobs = [job(model("sd1"), steps=7, seed=seed) for seed in range(3)]
    jobs[1].start, jobs[2].start = start("sd1", 0.5), start("sd1", 0.7, masked=True)
    counter = Counter()
    together = denoise(*model("sd1")[1:3], jobs, counter=counter)
    assert counter.forwards == 8  # PNDM's seven steps in eight calls; the starts walk less
    assert apart_of_widest(together[1], actual("sd1", 0.5, seed=1)) <= TOLERANCE
    assert apart_of_widest(together[2], actual("sd1", 0.7, masked=True, seed=2)) <= TOLERANCE


@pytest.mark.parametrize(
    ("strength", "reported"), [(0.0, "more than 0"), (1.5, "at most 1"), (-1.0, "more than 0"), (0.1, "less than one step")]
)
def test_a_strength_that_draws_nothing_is_refused(strength: float, reported: str) -> None:
    with pytest.raises(Refused, match=reported):
        actual("sd1", strength)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), builds())
def test_every_family_starts_from_an_image(family: str, variant: str) -> None:
    """With a pipeline for it or without: the recipe is one. What a mask keeps is the start's own latents; a weaker start stays nearer."""
    import torch

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler
    from infer.draw.start import Start
    from tests.tiny_families import module_of

    size = module_of(family).SIZE
    seam, parts = tiny_parts(family, variant=variant)
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, size, size)
    mask[..., : size // 2] = 1.0

    def latents(strength: float, masked: bool, prompt: str = "a red apple") -> Any:
        with torch.no_grad():
            job = Job(
                conditional=seam.encode_prompts(parts, [prompt]),
                unconditional=seam.encode_unconditional(parts, 1) if seam.guided(parts, 5.0, negative=False) else None,
                guidance=5.0,
                steps=5,
                scheduler=build_scheduler(parts),
                seed=7,
                height=size,
                width=size,
                start=Start(pixels=pixels, strength=strength, mask=mask if masked else None),
            )
        return denoise(seam, parts, [job])[0]

    weak, strong = latents(0.4, False), latents(1.0, False)
    assert torch.isfinite(weak).all() and apart(weak, strong) > 1e-3
    kept = latents(0.6, True)
    half = kept.shape[-1] // 2
    assert apart(kept[..., half:], latents(0.6, True, "two cats")[..., half:]) == 0.0
    assert apart(kept[..., :half], latents(0.8, True)[..., :half]) > 1e-4
