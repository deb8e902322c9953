"""Images steered by ControlNets against diffusers' own pipelines, on the tiny models, in float32 on the CPU.

A fresh ControlNet ends in zeros and changes nothing, so the tests fill every zero layer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from registry.errors import BadFile, FamilyMismatch, Refused
from tests.infer.draw.test_denoise import T5_TOKENS, TOLERANCE, Model, apart, apart_of_widest, drawn, job
from tests.tiny import SIZES, plain_pipeline, shared_folder, tiny_control, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

NETS = {"sd1": ("plain",), "sdxl": ("plain", "union"), "flux1": ("plain", "union", "hint-block")}
EVERY = [(family, variant) for family, variants in NETS.items() for variant in variants]
PIPELINES = {
    ("sd1", "plain"): "StableDiffusionControlNetPipeline",
    ("sdxl", "plain"): "StableDiffusionXLControlNetPipeline",
    ("sdxl", "union"): "StableDiffusionXLControlNetUnionPipeline",
    ("flux1", "plain"): "FluxControlNetPipeline",
    ("flux1", "union"): "FluxControlNetPipeline",
    ("flux1", "hint-block"): "FluxControlNetPipeline",
}


@cache
def model(family: str) -> Model:
    return (family, *tiny_parts(family), plain_pipeline(family))


def net_of(family: str, variant: str = "plain", *, seed: int = 1, device: str = "cpu") -> Any:
    import torch

    _name, fam, parts, _pipeline = model(family)
    return fam.control.load(tiny_control(family, variant, seed=seed), parts, dtype=torch.float32, device=device)


def image(family: str, seed: int = 0) -> Any:
    """A hint as a PIL image of the family's tiny size."""
    import numpy
    from PIL import Image

    size = SIZES[family]
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=numpy.uint8))


def pixels(image: Any) -> Any:
    import numpy
    import torch

    return torch.from_numpy(numpy.asarray(image, dtype=numpy.float32)[None] / 255).permute(0, 3, 1, 2)  # the processor's own strides


def steering(family: str, variant: str = "plain", *, seed: int = 1, hint: int = 0, **options: Any) -> Any:
    from infer.draw.control import Steering

    mode = {"mode": 1} if variant == "union" else {}
    return Steering(net=net_of(family, variant, seed=seed), pixels=pixels(image(family, hint)), **mode, **options)


def plain(
    family: str, variant: str, nets: Any, hints: Any, scale: Any = 1.0, *, start: Any = 0.0, end: Any = 1.0, guidance: float = 5.0
) -> Any:
    """The latents (1, C, H, W) of diffusers' ControlNet pipeline."""
    import diffusers
    import torch

    from infer.draw.samplers import build_scheduler

    _name, _family, parts, base = model(family)
    components = {
        name: part for name, part in base.components.items() if name not in ("image_encoder", "feature_extractor", "safety_checker")
    }
    if family == "sd1":
        components |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, PIPELINES[family, variant])(**components, controlnet=nets)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(parts)
    extra: dict[str, Any] = (
        {"image": hints} if PIPELINES[family, variant].endswith("XLControlNetPipeline") or family == "sd1" else {"control_image": hints}
    )
    if variant == "union":
        extra["control_mode"] = 1
    if family == "flux1":
        extra["max_sequence_length"] = T5_TOKENS
    size = SIZES[family]
    latents = pipeline(
        prompt="a red apple",
        num_inference_steps=4,
        guidance_scale=guidance,
        height=size,
        width=size,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
        controlnet_conditioning_scale=scale,
        control_guidance_start=start,
        control_guidance_end=end,
        **extra,
    ).images
    return pipeline._unpack_latents(latents, size, size, pipeline.vae_scale_factor) if latents.ndim == 3 else latents


def actual(family: str, *steerings: Any, **changes: Any) -> Any:
    one = job(model(family), **changes)
    one.steerings = steerings
    return drawn(model(family), [one])[0]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), sorted(PIPELINES))
def test_the_pipeline_s_steered_image(family: str, variant: str) -> None:
    steered = actual(family, steering(family, variant, scale=0.7))
    expected = plain(family, variant, net_of(family, variant), image(family), 0.7)
    assert apart(steered, expected) <= TOLERANCE
    assert apart(steered, actual(family)) > 1e-2  # the hint plays a part
    assert apart(steered, actual(family, steering(family, variant, hint=1, scale=0.7))) > 1e-4


@pytest.mark.parametrize("family", sorted(NETS))
def test_two_nets_and_their_windows(family: str) -> None:
    from diffusers import FluxMultiControlNetModel, MultiControlNetModel

    from infer.draw.denoise import Counter, denoise

    multi = FluxMultiControlNetModel if family == "flux1" else MultiControlNetModel
    nets = multi([net_of(family), net_of(family, seed=2)])
    one = job(model(family))
    one.steerings = (steering(family, scale=0.7, end=0.5), steering(family, seed=2, hint=1, scale=0.4, start=0.3))
    counter = Counter()
    (steered,) = denoise(model(family)[1], model(family)[2], [one], counter=counter)
    hints = [image(family), image(family, 1)]
    assert apart(steered, plain(family, "plain", nets, hints, [0.7, 0.4], start=[0.0, 0.3], end=[0.5, 1.0])) <= TOLERANCE
    steps = len(one.scheduler.timesteps)
    active_steps = sum(step.is_active(at, steps) for step in one.steerings for at in range(steps))
    assert counter.control_calls == active_steps < 2 * steps  # a net that is out of its window is not called


def test_no_unconditional_pass() -> None:
    steered = actual("sd1", steering("sd1"), guidance=1.0)
    assert apart(steered, plain("sd1", "plain", net_of("sd1"), image("sd1"), guidance=1.0)) <= TOLERANCE


@pytest.mark.parametrize("family", sorted(NETS))
def test_steered_and_free_images_share_forwards(family: str) -> None:
    """A net of a lower scale, one of another and none at all, in one batch, are what they are alone."""
    choices = [(), (steering(family, scale=0.5),), (steering(family, seed=2), steering(family, hint=1, scale=0.5))]
    jobs = [job(model(family), seed=index) for index in range(3)]
    for one, steerings in zip(jobs, choices, strict=True):
        one.steerings = steerings
    for index, latents in enumerate(drawn(model(family), jobs)):
        assert apart_of_widest(latents, actual(family, *choices[index], seed=index)) <= TOLERANCE


@pytest.mark.parametrize("family", ["sdxl", "flux1"])
def test_a_union_net_receives_its_mode(family: str) -> None:
    from dataclasses import replace

    first = steering(family, "union")
    assert apart(actual(family, first), actual(family, replace(first, mode=0))) > 1e-4


# --- loading


@pytest.mark.parametrize(("family", "variant"), EVERY)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_net_loads_frozen_and_as_a_skeleton(family: str, variant: str, device: str) -> None:
    net = net_of(family, variant, device=device)
    assert {parameter.device.type for parameter in net.parameters()} == {device}
    assert not any(parameter.requires_grad for parameter in net.parameters()) and not net.training
    assert model(family)[1].control.modes(net) == (3 if variant == "union" else 0)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "flux1"])
def test_a_single_file_beside_its_config_or_of_the_base_s_build(family: str, tmp_path: Path) -> None:
    import shutil

    import torch

    _name, fam, parts, _pipeline = model(family)
    folder = tiny_control(family, "plain")
    alone = tmp_path / "canny.safetensors"
    shutil.copy(folder / "diffusion_pytorch_model.safetensors", alone)
    for path in (folder / "diffusion_pytorch_model.safetensors", alone):
        net = fam.control.load(path, parts, dtype=torch.float32, device="cpu")
        for name, tensor in net_of(family).state_dict().items():
            assert tensor.equal(net.state_dict()[name]), name


def test_a_single_file_in_ldm_s_names(tmp_path: Path) -> None:
    import diffusers
    import torch
    from safetensors.torch import save_file

    family, parts = tiny_parts("sd1")
    parts.latent_factor = 8  # LDM's hint has eight convolutions, which make it smaller by eight
    net = diffusers.ControlNetModel.from_unet(parts.denoiser, conditioning_embedding_out_channels=(4, 8, 12, 16))
    state = net.state_dict()
    path = tmp_path / "control_canny.safetensors"
    save_file({f"control_model.{_ldm_name(name)}": tensor.contiguous() for name, tensor in state.items()}, path)
    read = family.control.load(path, parts, dtype=torch.float32, device="cpu")
    for name, tensor in read.state_dict().items():
        assert tensor.equal(state[name]), name


def _ldm_name(name: str) -> str:
    """A parameter of the tiny net in the names of the first ControlNet code."""
    heads = {
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "conv_in.": "input_blocks.0.0.",
        "controlnet_cond_embedding.conv_in.": "input_hint_block.0.",
        "controlnet_cond_embedding.conv_out.": "input_hint_block.14.",
        "controlnet_mid_block.": "middle_block_out.0.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
        "down_blocks.0.resnets.0.": "input_blocks.1.0.",
        "down_blocks.0.attentions.0.": "input_blocks.1.1.",
        "down_blocks.0.downsamplers.0.conv.": "input_blocks.2.0.op.",
        "down_blocks.1.resnets.0.": "input_blocks.3.0.",
        **{f"controlnet_cond_embedding.blocks.{block}.": f"input_hint_block.{2 * (block + 1)}." for block in range(6)},
        **{f"controlnet_down_blocks.{block}.": f"zero_convs.{block}.0." for block in range(4)},
    }
    resnet = {
        "norm1.": "in_layers.0.",
        "conv1.": "in_layers.2.",
        "time_emb_proj.": "emb_layers.1.",
        "norm2.": "out_layers.0.",
        "conv2.": "out_layers.3.",
    }
    resnet |= {"conv_shortcut.": "skip_connection."}
    own = next(own for own in heads if name.startswith(own))
    rest = name.removeprefix(own)
    if "resnets" in own:
        rest = next(resnet[part] + rest.removeprefix(part) for part in resnet if rest.startswith(part))
    return heads[own] + rest


def test_what_does_not_fit_is_refused_before_a_weight_is_read(tmp_path: Path) -> None:
    import torch

    _name, fam, parts, _pipeline = model("sd1")
    with pytest.raises(FamilyMismatch, match="FluxControlNetModel"):
        fam.control.load(tiny_control("flux1", "plain"), parts, dtype=torch.float32, device="meta")
    with pytest.raises(Refused, match=r"another build than this base: .*addition_embed_type"):
        fam.control.load(tiny_control("sdxl", "plain"), parts, dtype=torch.float32, device="meta")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((tiny_control("sd1") / "config.json").read_bytes())
    (pickled / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadFile, match="only pickled weights"):
        fam.control.load(pickled, parts, dtype=torch.float32, device="meta")
    with pytest.raises(BadFile, match="UNet2DConditionModel"):
        fam.control.load(shared_folder("sd1") / "unet", parts, dtype=torch.float32, device="meta")


def test_a_family_without_a_controlnet_says_why() -> None:
    from dataclasses import replace

    from infer.draw.control import control_of

    with pytest.raises(Refused, match="cannot be steered by a ControlNet: its denoiser takes none"):
        control_of(replace(model("sd1")[1], control="its denoiser takes none"))
