"""Sana: the request around a prompt, a VAE without a posterior, the record's own DPM++, and adapters that diffusers passes over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.detect.inspect import inspect
from registry.errors import BadFile, Refused
from registry.families import FAMILIES, sana
from tests.registry.made import model
from tests.tiny import plain_pipeline, shared_folder, tiny_model, tiny_parts, transformer_single_file

PROMPTS = ["  A Red Apple", "hi"]


def loaded(path: Path, base_config: Path | None = None, *, device: str = "cpu") -> Any:
    return FAMILIES["sana"].load(path, dtype=torch.float32, device=device, base_config=base_config)


# --- text


@pytest.mark.slow
def test_prompts_have_the_request_and_negatives_go_without() -> None:
    import inspect as python

    family, parts = tiny_parts("sana")
    pipeline = plain_pipeline("sana")
    request = python.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    with torch.no_grad():
        reference = pipeline.encode_prompt(list(PROMPTS), negative_prompt=list(PROMPTS), complex_human_instruction=request)
        actual, negatives = family.encode_prompts(parts, PROMPTS), family.negatives(parts, PROMPTS)
    assert actual["embeds"].equal(reference[0]) and actual["mask"].equal(reference[1].bool())
    assert negatives["embeds"].equal(reference[2]) and negatives["mask"].equal(reference[3].bool())
    assert "\n".join(request) == sana.REQUEST


def test_texts_are_read_in_lower_case_without_their_ends() -> None:
    family, parts = tiny_parts("sana")
    assert family.negatives(parts, ["  A Dog "])["embeds"].equal(family.negatives(parts, ["a dog"])["embeds"])
    assert family.count_tokens(parts, "  A Dog ") == family.count_tokens(parts, "a dog") == (len("a dog") + 2, 300)
    with pytest.raises(Refused, match="no layer to skip"):
        family.encode_prompts(parts, PROMPTS, clip_skip=1)


def test_what_does_not_fit_is_counted_so() -> None:
    """One character a token here: 298 fit behind the request, and the 299th changes nothing."""
    family, parts = tiny_parts("sana")
    long = "x" * 298
    assert family.count_tokens(parts, long) == (300, 300)
    with torch.no_grad():
        fits, more = family.encode_prompts(parts, [long]), family.encode_prompts(parts, [f"{long}y"])
    assert fits["embeds"].equal(more["embeds"]) and bool(fits["mask"].all())


# --- images


def test_latents_are_scaled_and_have_no_posterior() -> None:
    family, parts = tiny_parts("sana")
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        posterior = family.encode_images(parts, pixels)
        assert posterior.logvar is None and torch.allclose(posterior.mean / 0.41407, parts.vae.encode(pixels).latent)
        assert posterior.sample(torch.ones_like(posterior.mean)).equal(posterior.mean)
        assert torch.allclose(family.decode(parts, posterior.mean), parts.vae.decode(posterior.mean / 0.41407).sample)
    assert (parts.latent_factor, parts.latent_channels, family.channels(parts), parts.resolution) == (2, 8, 8, 16)


def test_a_build_with_a_variance_beside_its_velocity() -> None:
    import diffusers

    family, parts = tiny_parts("sana")
    wide: Any = diffusers.SanaTransformer2DModel.from_config({**parts.denoiser.config, "out_channels": 16})
    parts.denoiser = wide.eval()
    noisy = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = family.negatives(parts, PROMPTS[:1])
        both = wide(noisy, encoder_hidden_states=state["embeds"], encoder_attention_mask=state["mask"], timestep=torch.tensor([9.0])).sample
        assert family.predict(parts, noisy, torch.tensor([9.0]), state).equal(both[:, :8])


# --- schedulers


def test_euler_draws_as_in_diffusers() -> None:
    """A record with the flow scheduler of other families walks its own table too, not the even sigmas that these are given."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    family, _parts = tiny_parts("sana")
    actual, reference = FlowMatchEulerDiscreteScheduler(shift=3.0), FlowMatchEulerDiscreteScheduler(shift=3.0)
    family.set_timesteps(actual, 4, height=64, width=64)
    reference.set_timesteps(4)
    assert actual.timesteps.equal(reference.timesteps) and float(actual.sigmas[-2]) < 0.02


# --- files


@pytest.mark.parametrize(("prefix", "original"), [("", True), ("model.diffusion_model.", True), ("", False)])
def test_a_single_file_takes_the_rest_from_base_config(prefix: str, original: bool, tmp_path: Path) -> None:
    folder = shared_folder("sana")
    file = transformer_single_file(folder, tmp_path / "sana.safetensors", sana.FILE_NAMES, prefix=prefix, original=original)
    record = inspect(file)
    assert (record.kind, record.family, record.prediction.value) == ("checkpoint", "sana", "flow")
    with pytest.raises(Refused, match=r"not bundled\. Give base_config=FOLDER"):
        loaded(file)
    expected = loaded(folder).denoiser.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in loaded(file, folder).denoiser.state_dict().items())


def test_the_names_are_those_diffusers_reads(tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_sana_transformer_to_diffusers
    from safetensors.torch import load_file

    folder = shared_folder("sana")
    state = load_file(transformer_single_file(folder, tmp_path / "sana.safetensors", sana.FILE_NAMES))
    state |= {"pos_embed": torch.zeros(1), "y_embedder.y_embedding": torch.zeros(1)}  # in every published file, and of no use
    expected = loaded(folder).denoiser.state_dict()
    converted = convert_sana_transformer_to_diffusers(state)
    assert all(tensor.equal(expected[name]) for name, tensor in converted.items())
    assert converted.keys() == {name for name in expected if name != "patch_embed.pos_embed"}


def test_a_sprint_build_is_refused(tmp_path: Path) -> None:
    folder = tiny_model("sana", tmp_path / "sprint")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "guidance_embeds": True}))
    with pytest.raises(BadFile, match="Sprint build"):
        loaded(folder, device="meta")


# --- adapters


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", 2240),
        ("transformer.transformer_blocks.0.ff.conv_point.lora_A.weight", 5600),
    ],
)
def test_its_adapters_are_known(name: str, width: int, tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", {name: (4, width)})
    record = inspect(tmp_path / "x.safetensors")
    assert (record.kind, record.family, record.components) == ("adapter", "sana", ("transformer",))
    model(tmp_path / "y.safetensors", {name: (4, width)}, metadata={"modelspec.architecture": "sana/lora"})
    assert inspect(tmp_path / "y.safetensors").warnings == ()
