"""ControlNets of Stable Diffusion 3 against diffusers' own pipeline: InstantX's kind, a plain one, 3.5 large's without places and text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from registry.errors import FamilyMismatch, Refused
from tests.tiny import plain_pipeline, tiny_parts

KINDS: dict[str, dict[str, Any]] = {
    "instantx": {"force_zeros_for_pooled_projection": True},
    "plain": {"force_zeros_for_pooled_projection": False},
    "large": {"force_zeros_for_pooled_projection": False, "joint_attention_dim": None, "use_pos_embed": False, "pos_embed_type": None},
}


@cache
def model() -> tuple[Any, Any, Any]:
    """(Family, Parts, stock pipeline) of one VAE that is sure of its means: the pipeline samples hints by no image's seed."""
    import torch

    family, parts = tiny_parts("sd3")
    pipeline = plain_pipeline("sd3")
    pipeline.vae = parts.vae
    last: Any = parts.vae.encoder.conv_out
    with torch.no_grad():
        last.weight[16:], last.bias[16:] = 0.0, -30.0
    return family, parts, pipeline


@cache
def saved_net(kind: str) -> Path:
    """A net of one block whose zero layers are filled, as a diffusers folder."""
    import diffusers
    import torch

    from tests.tiny import scratch

    accepted = {"sample_size", "patch_size", "in_channels", "attention_head_dim", "num_attention_heads", "joint_attention_dim"}
    accepted |= {"caption_projection_dim", "pooled_projection_dim", "out_channels", "pos_embed_max_size", "qk_norm"}
    config = {name: value for name, value in model()[1].denoiser.config.items() if name in accepted}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = diffusers.SD3ControlNetModel(**{**config, "num_layers": 1, **KINDS[kind]})
        with torch.no_grad():
            for module in (net.pos_embed_input, *net.controlnet_blocks):
                for weight in module.parameters():
                    weight.normal_(0.0, 0.3)
    folder = scratch(f"sd3-control-{kind}")
    net.save_pretrained(folder)
    return folder


def net_of(kind: str) -> Any:
    import torch

    family, parts, _pipeline = model()
    return family.control.load(saved_net(kind), parts, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_steered_image_is_the_pipeline_s(kind: str) -> None:
    import diffusers
    import numpy
    import torch
    from PIL import Image

    from infer.draw.control import Steering
    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler

    family, parts, base = model()
    hint = numpy.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
    components = {name: part for name, part in base.components.items() if name not in ("image_encoder", "feature_extractor")}
    expected_net = diffusers.SD3ControlNetModel.from_pretrained(saved_net(kind), dtype=torch.float32).eval()
    pipeline = diffusers.StableDiffusion3ControlNetPipeline(**{**components, "scheduler": build_scheduler(parts)}, controlnet=expected_net)
    pipeline.set_progress_bar_config(disable=True)
    settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 5.0, "height": 64, "width": 64, "output_type": "latent"}
    expected = pipeline(
        prompt="a red apple",
        control_image=Image.fromarray(hint),
        controlnet_conditioning_scale=0.7,
        max_sequence_length=48,
        generator=torch.Generator("cpu").manual_seed(7),
        **settings,
    ).images
    pixels = torch.from_numpy(hint).permute(2, 0, 1)[None].float() / 255

    def drawn(*steerings: Any) -> Any:
        with torch.no_grad():
            job = Job(
                conditional=family.encode_prompts(parts, ["a red apple"]),
                unconditional=family.encode_unconditional(parts, 1),
                guidance=5.0,
                steps=4,
                scheduler=build_scheduler(parts),
                seed=7,
                height=64,
                width=64,
                steerings=steerings,
            )
        return denoise(family, parts, [job])[0]

    actual = drawn(Steering(net=net_of(kind), pixels=pixels, scale=0.7))
    assert float((actual - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert float((actual - drawn()).abs().max()) > 1e-2, "the net shows"


def test_a_single_file_is_the_folder_s_net(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    family, parts, _pipeline = model()
    for kind in ("instantx", "large"):
        (weights,) = saved_net(kind).glob("*.safetensors")
        save_file(load_file(weights), tmp_path / f"{kind}.safetensors")
        net = family.control.load(tmp_path / f"{kind}.safetensors", parts, dtype=torch.float32, device="cpu")
        folder = net_of(kind).state_dict()
        assert all(tensor.equal(folder[name]) for name, tensor in net.state_dict().items())
    family.control.load(saved_net("plain"), parts, dtype=torch.float32, device="meta")


def test_nets_of_other_builds_are_refused_before_a_weight_is_read(tmp_path: Path) -> None:
    import diffusers
    import torch

    family, parts, _pipeline = model()
    config = dict(diffusers.SD3ControlNetModel.load_config(saved_net("plain")))
    for change, words in (
        ({"num_attention_heads": 2}, "num_attention_heads is 2, the base's 4"),
        ({"extra_conditioning_channels": 1}, "takes 1 channels beside the hint's latents"),
    ):
        diffusers.SD3ControlNetModel.from_config(config | change).save_pretrained(tmp_path / str(len(words)))
        with pytest.raises(Refused, match=words):
            family.control.load(tmp_path / str(len(words)), parts, dtype=torch.float32, device="meta")
    from tests.tiny import tiny_control

    with pytest.raises(FamilyMismatch, match="A ControlNet of SD3 is a SD3ControlNetModel"):
        family.control.load(tiny_control("sd1", "plain"), parts, dtype=torch.float32, device="meta")
