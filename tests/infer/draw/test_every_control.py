"""Images steered by a ControlNet, for every family in tests/tiny_families that diffusers has a pipeline for, in float32 on the CPU.

A fresh ControlNet ends in zeros and changes nothing, so every zero layer is filled.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.draw.control import Steering
from registry.errors import FamilyMismatch, Refused
from tests.infer.draw.test_every_family import TOLERANCE, Build, apart, drawn, job
from tests.tiny import plain_pipeline, scratch, tiny_parts
from tests.tiny_families import builds, module_of

FAMILIES_HERE = sorted({name for name, _variant in builds() if hasattr(module_of(name), "CONTROL")})
KINDS = [(family, kind) for family in FAMILIES_HERE for kind in module_of(family).CONTROLS]


@cache
def build(family: str) -> Build:
    return (family, *tiny_parts(family), plain_pipeline(family))


@cache
def folder(family: str, kind: str, seed: int = 1) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = module_of(family).control_net(build(family)[2].denoiser, kind)
        with torch.no_grad():
            for weight in net.parameters():
                if not weight.any():
                    weight.normal_(0.0, 0.2 if weight.ndim > 1 else 0.02)
    place = scratch(f"control-{family}-{kind}-{seed}")
    net.save_pretrained(place)
    return place


def loaded(family: str, kind: str, *, seed: int = 1, device: str = "cpu") -> Any:
    _name, seam, parts, _pipeline = build(family)
    return seam.control.load(folder(family, kind, seed), parts, dtype=torch.float32, device=device)


def image(family: str, seed: int = 0) -> Any:
    import numpy
    from PIL import Image

    size = module_of(family).SIZE
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=numpy.uint8))


def steering(family: str, kind: str, *, hint: int = 0, **options: Any) -> Steering:
    import numpy

    values = numpy.asarray(image(family, hint), dtype=numpy.float32) / 255
    return Steering(net=loaded(family, kind), pixels=torch.from_numpy(values).permute(2, 0, 1)[None], **options)


def actual(family: str, *steerings: Steering, **changes: Any) -> Any:
    one = job(build(family), negative="a dog", **changes)
    one.steerings = steerings
    return drawn(build(family), [one])[0]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_pipeline_s_steered_image(family: str, kind: str) -> None:
    import diffusers

    from infer.draw.samplers import build_scheduler

    module = module_of(family)
    _name, _seam, parts, base = build(family)
    base.vae = parts.vae  # the very same: a copy at other addresses differs by 3e-5
    pipeline = getattr(diffusers, module.CONTROL)(**base.components, controlnet=loaded(family, kind))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(parts)
    reference = module.latents(
        pipeline,
        prompt="a red apple",
        negative="a dog",
        guidance=5.0,
        steps=4,
        size=module.SIZE,
        seed=7,
        control_image=image(family),
        controlnet_conditioning_scale=0.7,
    )
    steered = actual(family, steering(family, kind, scale=0.7))
    assert apart(steered, reference) <= TOLERANCE
    assert apart(steered, actual(family)) > 1e-3, "the hint plays a part"
    assert apart(steered, actual(family, steering(family, kind, hint=1, scale=0.7))) > 1e-4
    assert apart(steered, actual(family, steering(family, kind, scale=0.3))) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_steered_and_free_images_share_forwards(family: str, kind: str) -> None:
    """One net, two, another scale and none at all, with prompts of several lengths, are what each is alone."""
    one, other = steering(family, kind, scale=0.5), steering(family, kind, hint=1)
    choices = [((), "a red apple"), ((one,), "hi"), ((one, other), "two cats on a very long mat of forty letters and more")]
    jobs = [job(build(family), prompt, negative="a dog") for _steerings, prompt in choices]
    for each, (steerings, _prompt) in zip(jobs, choices, strict=True):
        each.steerings = steerings
    for latents, (steerings, prompt) in zip(drawn(build(family), jobs), choices, strict=True):
        assert apart(latents, actual(family, *steerings, prompt=prompt)) <= TOLERANCE


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_a_net_is_frozen_and_has_a_skeleton(family: str, kind: str) -> None:
    net = loaded(family, kind)
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())
    assert {weight.device.type for name, weight in loaded(family, kind, device="meta").named_parameters() if "control" in name} == {"meta"}


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_a_single_file_has_its_config_beside_it_or_that_of_the_base(family: str, kind: str, tmp_path: Path) -> None:
    _name, seam, parts, _pipeline = build(family)
    shutil.copy(folder(family, kind) / "diffusion_pytorch_model.safetensors", tmp_path / "net.safetensors")
    shutil.copy(folder(family, kind) / "config.json", tmp_path / "config.json")
    first = seam.control.load(tmp_path / "net.safetensors", parts, dtype=torch.float32, device="cpu").state_dict()
    expected = loaded(family, kind).state_dict()
    assert first.keys() == expected.keys() and all(tensor.equal(expected[name]) for name, tensor in first.items())
    (tmp_path / "config.json").unlink()
    if family == "z_image":
        with pytest.raises(Refused, match=r"Put its config\.json beside the file"):
            seam.control.load(tmp_path / "net.safetensors", parts, dtype=torch.float32, device="cpu")
        return
    again = seam.control.load(tmp_path / "net.safetensors", parts, dtype=torch.float32, device="cpu").state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in again.items())


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_a_net_of_another_family_or_build_is_refused(family: str, kind: str, tmp_path: Path) -> None:
    _name, seam, parts, _pipeline = build(family)
    other = folder(*next(each for each in KINDS if each[0] != family))
    with pytest.raises(FamilyMismatch, match=r"A ControlNet of .* is a"):
        seam.control.load(other, parts, dtype=torch.float32, device="meta")
    odd = Path(shutil.copytree(folder(family, kind), tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    heads = "n_heads" if family == "z_image" else "num_attention_heads"
    (odd / "config.json").write_text(json.dumps({**config, heads: config[heads] // 2}))
    with pytest.raises(Refused, match="was made for another build than this base"):
        seam.control.load(odd, parts, dtype=torch.float32, device="meta")
