"""Our denoising loop against diffusers' own pipelines, on the tiny models, in float32 on the CPU.

An image drawn alone must be the pipeline's to 1e-5. Images that share forwards go through other matrix shapes, and an
untrained model's latents end tens wide, so there the difference is counted against the widest latent.
"""

from __future__ import annotations

from typing import Any

import pytest

from infer.draw.samplers import SAMPLERS, flow_samplers
from registry.errors import JobFailed, Refused
from tests.tiny import FAMILIES_HERE, SIZES, plain_pipeline, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

TOLERANCE = 1e-5  # of float32 sums in another order
STEPS = 4
PROMPTS = ("a red apple", "two cats on a mat")
T5_TOKENS = 48  # what the tiny T5 tokenizer holds

Model = tuple[str, Any, Any, Any]  # family name, Family, Parts, diffusers' pipeline


@pytest.fixture(scope="module", params=FAMILIES_HERE)
def model(request: pytest.FixtureRequest) -> Model:
    return (request.param, *tiny_parts(request.param), plain_pipeline(request.param))


@pytest.fixture(scope="module")
def sd1() -> Model:
    return ("sd1", *tiny_parts("sd1"), plain_pipeline("sd1"))


@pytest.fixture(scope="module")
def flux() -> Model:
    return ("flux1", *tiny_parts("flux1"), plain_pipeline("flux1"))


def job(model: Model, prompt: str = PROMPTS[0], **changes: Any) -> Any:
    """A Job of the model; `negative` None is none, `sampler` None the base's own."""
    import torch

    from infer.draw.denoise import Job
    from infer.draw.samplers import build_scheduler

    name, family, parts, _pipeline = model
    settings: dict[str, Any] = {"seed": 7, "steps": STEPS, "guidance": 5.0, "sampler": None, "negative": None}
    settings |= {"size": SIZES[name], "clip_skip": None}
    settings |= changes
    with torch.no_grad():
        negative = None
        if family.classifier_free(parts):
            text = settings["negative"]
            negative = family.encode_unconditional(parts, 1) if text is None else family.encode_prompts(parts, [text])
        return Job(
            conditional=family.encode_prompts(parts, [prompt], clip_skip=settings["clip_skip"]),
            unconditional=negative,
            guidance=settings["guidance"],
            steps=settings["steps"],
            scheduler=build_scheduler(parts, settings["sampler"]),
            seed=settings["seed"],
            height=settings["size"],
            width=settings["size"],
        )


def drawn(model: Model, jobs: list[Any], **options: Any) -> list[Any]:
    from infer.draw.denoise import denoise

    return denoise(model[1], model[2], jobs, **options)


def plain(model: Model, prompt: str = PROMPTS[0], **changes: Any) -> Any:
    """The latents (1, C, H, W) of diffusers' pipeline with the same settings."""
    import torch

    from infer.draw.samplers import build_scheduler

    name, family, parts, pipeline = model
    settings = {"seed": 7, "steps": STEPS, "guidance": 5.0, "sampler": None, "negative": None, "size": SIZES[name]} | changes
    pipeline.scheduler = build_scheduler(parts, settings["sampler"])
    extra = {"max_sequence_length": T5_TOKENS} if not family.classifier_free(parts) else {"negative_prompt": settings["negative"]}
    latents = pipeline(
        prompt=prompt,
        num_inference_steps=settings["steps"],
        guidance_scale=settings["guidance"],
        height=settings["size"],
        width=settings["size"],
        generator=torch.Generator("cpu").manual_seed(settings["seed"]),
        output_type="latent",
        **extra,
    ).images
    if latents.ndim == 3:  # FLUX leaves them packed
        latents = pipeline._unpack_latents(latents, settings["size"], settings["size"], pipeline.vae_scale_factor)
    return latents


def apart(actual: Any, expected: Any) -> float:
    return float((actual - expected).abs().max())


def apart_of_widest(actual: Any, expected: Any) -> float:
    return apart(actual, expected) / max(1.0, float(expected.abs().max()))


# --- the stock pipeline's image


def test_the_base_s_own_sampler(model: Model) -> None:
    (actual,) = drawn(model, [job(model)])
    assert apart(actual, plain(model)) <= TOLERANCE


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler(sd1: Model, sampler: str) -> None:
    (actual,) = drawn(sd1, [job(sd1, sampler=sampler)])
    assert apart(actual, plain(sd1, sampler=sampler)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_of_sdxl(sampler: str) -> None:
    model = ("sdxl", *tiny_parts("sdxl"), plain_pipeline("sdxl"))
    (actual,) = drawn(model, [job(model, sampler=sampler)])
    assert apart(actual, plain(model, sampler=sampler)) <= TOLERANCE


@pytest.mark.parametrize("sampler", sorted(set(flow_samplers()) - {"heun", "lcm"}))  # the pipeline cannot call Heun and does not seed LCM
def test_every_flow_sampler(flux: Model, sampler: str) -> None:
    (actual,) = drawn(flux, [job(flux, sampler=sampler)])
    assert apart(actual, plain(flux, sampler=sampler)) <= TOLERANCE


def test_a_build_without_guidance_and_with_a_static_shift() -> None:
    model = ("flux1", *tiny_parts("flux1", variant="schnell"), plain_pipeline("flux1", variant="schnell"))
    (actual,) = drawn(model, [job(model)])
    assert apart(actual, plain(model)) <= TOLERANCE


@pytest.mark.slow
def test_v_prediction() -> None:
    model = ("sd1", *tiny_parts("sd1", prediction="v_prediction"), plain_pipeline("sd1", prediction="v_prediction"))
    (actual,) = drawn(model, [job(model, sampler="ddim")])
    expected = plain(model, sampler="ddim")
    assert apart(actual, expected) <= TOLERANCE
    epsilon = ("sd1", *tiny_parts("sd1"), plain_pipeline("sd1"))
    assert apart(actual, plain(epsilon, sampler="ddim")) > 0.1  # the prediction type plays a part


def test_no_guidance(model: Model) -> None:
    (actual,) = drawn(model, [job(model, guidance=1.0)])
    assert apart(actual, plain(model, guidance=1.0)) <= TOLERANCE


@pytest.mark.parametrize("negative", ["", "a blurred dog"])
def test_a_negative_prompt(model: Model, negative: str) -> None:
    if not model[1].classifier_free(model[2]):
        given = job(model)
        given.unconditional = given.conditional
        with pytest.raises(Refused, match="negative prompt would have no effect"):
            drawn(model, [given])
        return
    (actual,) = drawn(model, [job(model, negative=negative)])
    assert apart(actual, plain(model, negative=negative)) <= TOLERANCE


def test_no_negative_prompt_is_not_the_empty_one_in_sdxl() -> None:
    model = ("sdxl", *tiny_parts("sdxl"), plain_pipeline("sdxl"))
    none, empty = drawn(model, [job(model)])[0], drawn(model, [job(model, negative="")])[0]
    assert apart(none, empty) > 0.01


def test_the_image_is_decoded_and_rounded_as_diffusers_does_it(model: Model) -> None:
    import numpy
    import torch

    from infer.draw.denoise import to_image

    latents = plain(model)
    pixels = model[1].decode(model[2], latents)
    with torch.no_grad():
        pipeline = model[3]
        scaled = latents / pipeline.vae.config.scaling_factor + (pipeline.vae.config.shift_factor or 0.0)
        expected = pipeline.vae.decode(scaled, return_dict=False)[0]
    assert apart(pixels, expected) <= TOLERANCE
    image = pipeline.image_processor.postprocess(expected, output_type="pil")[0]
    assert numpy.array_equal(numpy.asarray(to_image(pixels)[0]), numpy.asarray(image))


def test_prompts_seeds_and_guidance_show(model: Model) -> None:
    base = drawn(model, [job(model)])[0]
    for change in ({"prompt": PROMPTS[1]}, {"seed": 8}, {"guidance": 2.0}, {"steps": 5}):
        assert apart(base, drawn(model, [job(model, **change)])[0]) > 1e-4, change


def test_a_size_that_is_not_square(sd1: Model) -> None:
    wide = job(sd1)
    wide.width = 48
    assert drawn(sd1, [wide])[0].shape == (1, 4, 8, 12)


# --- many at once


def test_two_prompts_in_one_batch_are_what_they_are_alone(model: Model) -> None:
    jobs = [job(model, prompt, seed=seed) for prompt, seed in zip(PROMPTS, (7, 8), strict=True)]
    together = drawn(model, jobs)
    for prompt, seed, actual in zip(PROMPTS, (7, 8), together, strict=True):
        assert apart_of_widest(actual, plain(model, prompt, seed=seed)) <= TOLERANCE


def mixed(model: Model) -> list[Any]:
    """Seven images that differ in everything an image can differ in."""
    samplers = ["euler", "dpmpp_2m", "heun", "euler_a", "ddim", "pndm", "unipc"]
    return [
        job(model, PROMPTS[i % 2], seed=i, steps=3 + i, guidance=1.0 + i, sampler=sampler, negative=[None, "", "a dog"][i % 3])
        for i, sampler in enumerate(samplers)
    ]


@pytest.mark.slow
def test_images_of_any_sampler_and_length_share_forwards(sd1: Model) -> None:
    from infer.draw.denoise import Counter

    alone = [drawn(sd1, [one])[0] for one in mixed(sd1)]
    counter = Counter()
    together = drawn(sd1, mixed(sd1), counter=counter)
    for actual, expected in zip(together, alone, strict=True):
        assert apart_of_widest(actual, expected) <= TOLERANCE
    calls = [len(one.scheduler.timesteps) for one in mixed_with_timesteps(sd1)]
    assert counter.forwards == max(calls)
    assert counter.rows == 2 * sum(calls) - calls[0]  # the first has guidance 1: no unconditional row


def mixed_with_timesteps(model: Model) -> list[Any]:
    jobs = mixed(model)
    for one in jobs:
        model[1].set_timesteps(one.scheduler, one.steps, height=one.height, width=one.width)
    return jobs


def test_a_narrow_batch_takes_the_next_as_one_ends(sd1: Model) -> None:
    from infer.draw.denoise import Counter

    seen: list[tuple[int, int]] = []
    counter = Counter()
    actual = drawn(sd1, mixed(sd1), width=3, counter=counter, on_step=lambda done, total: seen.append((done, total)))
    for one, expected in zip(actual, drawn(sd1, mixed(sd1)), strict=True):
        assert apart_of_widest(one, expected) <= TOLERANCE
    calls = sum(len(one.scheduler.timesteps) for one in mixed_with_timesteps(sd1))
    assert seen[-1] == (calls, calls)
    assert len(seen) == counter.forwards >= calls / 3
    assert [done for done, _total in seen] == sorted({done for done, _total in seen})


def test_images_of_two_sizes(sd1: Model) -> None:
    jobs = [job(sd1), job(sd1, size=48), job(sd1, seed=9)]
    shapes = [latents.shape[-1] for latents in drawn(sd1, jobs)]
    assert shapes == [8, 12, 8]


def test_two_flux_guidances_in_one_batch(flux: Model) -> None:
    jobs = [job(flux, guidance=1.0), job(flux, guidance=6.0)]
    for guidance, actual in zip((1.0, 6.0), drawn(flux, jobs), strict=True):
        assert apart_of_widest(actual, plain(flux, guidance=guidance)) <= TOLERANCE


def test_a_job_can_be_drawn_twice_with_the_same_bits(sd1: Model) -> None:
    first, second = (drawn(sd1, [job(sd1, sampler="euler_a")])[0] for _time in range(2))
    assert first.equal(second)


# --- traps and refusals


def test_the_first_noise_is_scaled_after_the_timesteps_are_set(sd1: Model) -> None:
    """Euler's init_noise_sigma is 14.65 before set_timesteps and less after it with leading spacing."""
    from infer.draw.samplers import build_scheduler

    _name, family, parts, _pipeline = sd1
    scheduler = build_scheduler(parts, "euler")
    family.set_timesteps(scheduler, STEPS, height=32, width=32)
    one = job(sd1, sampler="euler", guidance=1.0)
    (actual,) = drawn(sd1, [one])
    assert apart(actual, plain(sd1, sampler="euler", guidance=1.0)) <= TOLERANCE
    assert float(scheduler.init_noise_sigma) == float(one.scheduler.init_noise_sigma)


def test_bfloat16_flux_has_the_pipeline_s_own_casts() -> None:
    """In bf16 the timestep is cast before it is divided: 826.06 becomes 828."""
    import torch

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler
    from registry.families import FAMILIES
    from tests.tiny import shared_folder

    family = FAMILIES["flux1"]
    parts = family.load(shared_folder("flux1"), dtype=torch.bfloat16, device="cpu")
    pipeline = plain_pipeline("flux1").to(torch.bfloat16)
    with torch.no_grad():
        conditional = family.encode_prompts(parts, [PROMPTS[0]])
    scheduler = build_scheduler(parts)
    one = Job(conditional=conditional, unconditional=None, guidance=3.5, steps=STEPS, scheduler=scheduler, seed=7, height=64, width=64)
    (actual,) = denoise(family, parts, [one])
    expected = plain(("flux1", family, parts, pipeline), guidance=3.5)
    assert actual.dtype == torch.bfloat16
    assert apart(actual.float(), expected.float()) == 0.0


@pytest.mark.parametrize("size", [30, 36, 0, -32])
def test_a_size_that_cannot_be_drawn_is_refused(sd1: Model, size: int) -> None:
    with pytest.raises(Refused, match="multiples of 8"):
        drawn(sd1, [job(sd1, size=size)])


def test_an_image_that_is_not_a_number_is_reported() -> None:
    import torch

    from infer.draw.denoise import to_image

    pixels = torch.zeros(2, 3, 4, 4)
    pixels[1, 0, 0, 0] = float("nan")
    with pytest.raises(JobFailed, match=r"Image 1 of 2 .*\. It holds NaN or infinity in float32, .*base.*ControlNet.*adapter"):
        to_image(pixels)
    latents = torch.zeros(2, 4, 1, 1)
    with pytest.raises(JobFailed, match=r"VAE's image holds NaN or infinity in float32, .*: weights of the VAE are NaN\. Fetch"):
        to_image(pixels, latents)
    with pytest.raises(JobFailed, match=r"What the denoiser gives .* far too large a weight"):
        to_image(pixels, latents / 0)
    for half in ((pixels.half(), latents), (pixels, latents.half())):
        with pytest.raises(JobFailed, match=r"in fp16.*precision=bf16 or fp32"):
            to_image(*half)
    with pytest.raises(JobFailed, match="in bfloat16, whose range no sound model overflows"):
        to_image(pixels.bfloat16(), latents)


def test_the_first_noise_is_diffusers_own() -> None:
    import torch

    from infer.draw.denoise import initial_noise

    family, parts = tiny_parts("flux1")
    noise = initial_noise(family, parts, torch.Generator("cpu").manual_seed(3), height=64, width=64)
    assert noise.equal(torch.randn(1, 16, 8, 8, generator=torch.Generator("cpu").manual_seed(3)))
