"""Our loop against diffusers' own pipeline for every build in tests/tiny_families, in float32 on the CPU."""

from __future__ import annotations

from typing import Any

import pytest

from registry.errors import Refused
from tests.tiny import plain_pipeline, tiny_parts
from tests.tiny_families import builds, module_of

TOLERANCE = 1e-5  # of float32 sums in another order, of the widest latent
STEPS = 4
PROMPTS = ("a red apple", "two cats on a mat")

Build = tuple[str, Any, Any, Any]  # family name, Family, Parts, diffusers' pipeline


@pytest.fixture(scope="module", params=builds(), ids="-".join)
def build(request: pytest.FixtureRequest) -> Build:
    name, variant = request.param
    return (name, *tiny_parts(name, variant=variant), plain_pipeline(name, variant=variant))


def job(build: Build, prompt: str = PROMPTS[0], **changes: Any) -> Any:
    """A Job as `infer.draw.draw` makes it; `negative` None is none given, `sampler` None the base's own."""
    import torch

    from infer.draw.denoise import Job
    from infer.draw.samplers import build_scheduler

    name, family, parts, _pipeline = build
    settings: dict[str, Any] = {"seed": 7, "steps": STEPS, "guidance": 5.0, "negative": None} | changes
    negative, size = settings["negative"], module_of(name).SIZE
    guided = family.guided(parts, settings["guidance"], negative=negative is not None)
    with torch.no_grad():
        unconditional = None
        if guided:
            unconditional = family.encode_unconditional(parts, 1) if negative is None else family.negatives(parts, [negative])
        return Job(
            conditional=family.encode_prompts(parts, [prompt]),
            unconditional=unconditional,
            guidance=settings["guidance"],
            steps=settings["steps"],
            scheduler=build_scheduler(parts),
            seed=settings["seed"],
            height=size,
            width=size,
        )


def drawn(build: Build, jobs: list[Any]) -> list[Any]:
    from infer.draw.denoise import denoise

    return denoise(build[1], build[2], jobs)


def plain(build: Build, prompt: str = PROMPTS[0], **changes: Any) -> Any:
    """What the stock pipeline ends with, its own scheduler fresh."""
    from infer.draw.samplers import build_scheduler

    name, _family, parts, pipeline = build
    pipeline.scheduler = build_scheduler(parts)
    settings: dict[str, Any] = {"seed": 7, "steps": STEPS, "guidance": 5.0, "negative": None, "size": module_of(name).SIZE} | changes
    return module_of(name).latents(pipeline, prompt=prompt, **settings)


def apart(actual: Any, expected: Any) -> float:
    return float((actual - expected).abs().max()) / max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("guidance", [*(pytest.param(value, marks=pytest.mark.slow) for value in (0.0, 1.0)), 5.0])
def test_the_plain_image(build: Build, guidance: float) -> None:
    (actual,) = drawn(build, [job(build, guidance=guidance)])
    expected = plain(build, guidance=guidance)
    assert actual.shape == expected.shape
    assert apart(actual, expected) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("negative", ["", "a blurred dog"])
def test_a_negative_prompt(build: Build, negative: str) -> None:
    if not build[1].classifier_free(build[2]):
        given = job(build)
        given.unconditional = given.conditional
        with pytest.raises(Refused, match="negative prompt would have no effect"):
            drawn(build, [given])
        return
    (actual,) = drawn(build, [job(build, negative=negative)])
    assert apart(actual, plain(build, negative=negative)) <= TOLERANCE


@pytest.mark.slow
def test_two_prompts_in_one_batch_are_what_they_are_alone(build: Build) -> None:
    jobs = [job(build, prompt, seed=seed) for prompt, seed in zip(PROMPTS, (7, 8), strict=True)]
    for prompt, seed, actual in zip(PROMPTS, (7, 8), drawn(build, jobs), strict=True):
        assert apart(actual, plain(build, prompt, seed=seed)) <= TOLERANCE


@pytest.mark.slow
def test_prompts_seeds_and_steps_show(build: Build) -> None:
    base = drawn(build, [job(build)])[0]
    for change in ({"prompt": PROMPTS[1]}, {"seed": 8}, {"steps": 5}):
        assert apart(base, drawn(build, [job(build, **change)])[0]) > 1e-4, change


def test_a_timestep_per_sample(build: Build) -> None:
    """A batch at two times is what each is alone."""
    import torch

    from registry.parts import collate

    name, family, parts, _pipeline = build
    size = module_of(name).SIZE
    shape = (2, family.channels(parts), size // parts.latent_factor, size // parts.latent_factor)
    noisy, times = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor([37.0, 731.0])
    with torch.no_grad():
        states = [
            family.complete(parts, family.encode_prompts(parts, [prompt]), height=size, width=size, guidance=2.0) for prompt in PROMPTS
        ]
        together = family.predict(parts, noisy, times, collate(states))
        for row, state in enumerate(states):
            alone = family.predict(parts, noisy[row : row + 1], times[row : row + 1], state)
            assert apart(together[row : row + 1], alone) <= TOLERANCE


def test_guidance_never_changes_a_list_of_prompts(build: Build) -> None:
    prompts = list(PROMPTS)
    build[1].encode_prompts(build[2], prompts)
    assert prompts == list(PROMPTS)
