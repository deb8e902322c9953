"""Z-Image: captions of their own length, time and velocity turned round, guidance that counts from 0, fused and split names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.detect.inspect import inspect
from registry.errors import BadFile, Refused
from registry.families import FAMILIES, z_image
from tests.registry.made import model
from tests.tiny import plain_pipeline, shared_folder, tiny_model, tiny_parts, transformer_single_file

PROMPTS = ["a red apple", "two cats on a mat"]


def loaded(path: Path, base_config: Path | None = None, *, device: str = "cpu") -> Any:
    return FAMILIES["z_image"].load(path, dtype=torch.float32, device=device, base_config=base_config)


# --- text


def test_prompts_are_encoded_as_the_pipeline_does_it_and_stay_as_they_are() -> None:
    """The pipeline puts its template into the list that it is given: a second call would have it twice."""
    family, parts = tiny_parts("z_image")
    mine, reference = list(PROMPTS), list(PROMPTS)
    with torch.no_grad():
        first, second = family.encode_prompts(parts, mine), family.encode_prompts(parts, mine)
        expected = plain_pipeline("z_image")._encode_prompt(reference)
    assert mine == PROMPTS != reference
    assert first["embeds"].equal(second["embeds"])
    for states, own, wanted in zip(first["embeds"], first["mask"], expected, strict=True):
        assert states[own].equal(wanted)
    assert first["mask"].dtype == torch.bool and first["mask"].shape[1] == int(first["mask"].sum(1).max())


def test_padding_of_a_batch_plays_no_part() -> None:
    family, parts = tiny_parts("z_image")
    noisy, times = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100.0, 900.0])
    with torch.no_grad():
        state = family.encode_prompts(parts, PROMPTS)
        odd = {**state, "embeds": state["embeds"].masked_fill(~state["mask"][..., None], 9.0)}
        assert family.predict(parts, noisy, times, state).equal(family.predict(parts, noisy, times, odd))


def test_the_template_counts_among_the_tokens_that_fit() -> None:
    family, parts = tiny_parts("z_image")
    needed, fit = family.count_tokens(parts, "hi")
    assert fit == 512 and family.encode_prompts(parts, ["hi"])["mask"].sum() == needed > 20
    assert family.encode_prompts(parts, ["word " * 200])["mask"].sum() == fit
    with pytest.raises(Refused, match="no layer to skip"):
        family.encode_prompts(parts, PROMPTS, clip_skip=1)


# --- denoising


def test_guidance_counts_from_nought() -> None:
    family, parts = tiny_parts("z_image")
    assert [family.guided(parts, scale, negative=False) for scale in (0.0, 0.5, 5.0)] == [False, True, True]
    assert family.guide(torch.tensor([3.0]), torch.tensor([1.0]), 2.0).tolist() == [7.0]


def test_the_velocity_points_from_the_image_to_the_noise() -> None:
    """The module itself is given 1 at the image and answers image - noise."""
    family, parts = tiny_parts("z_image")
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = family.encode_prompts(parts, PROMPTS[:1])
        actual = family.predict(parts, noisy, torch.tensor([250.0]), state)
        (reference,) = parts.denoiser([noisy[0].unsqueeze(1)], torch.tensor([0.75]), [state["embeds"][0]], return_dict=False)[0]
    assert actual[0].equal(-reference[:, 0])


def test_half_precision_predicts_in_float32_for_latents_that_stay_there() -> None:
    family = FAMILIES["z_image"]
    parts = family.load(shared_folder("z_image"), dtype=torch.bfloat16, device="cpu")
    with torch.no_grad():
        state = family.encode_prompts(parts, PROMPTS[:1])
        answer = family.predict(parts, torch.zeros(1, 16, 8, 8), torch.tensor([500.0]), state)
    assert state["embeds"].dtype == torch.bfloat16 and answer.dtype == torch.float32 and family.fp32_latents


def test_training_takes_the_posterior_s_mean() -> None:
    family, parts = tiny_parts("z_image")
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert family.trains_on_mean and family.encode_images(parts, pixels).logvar is not None  # image-to-image samples


# --- files


@pytest.mark.parametrize(("prefix", "original"), [("", True), ("model.diffusion_model.", True), ("", False), ("transformer.", False)])
def test_a_single_file_takes_the_rest_from_base_config(prefix: str, original: bool, tmp_path: Path) -> None:
    folder = shared_folder("z_image")
    file = transformer_single_file(folder, tmp_path / "z.safetensors", z_image.FILE_NAMES, prefix=prefix, original=original)
    record = inspect(file)
    assert (record.kind, record.family, record.variant, record.prediction.value) == ("checkpoint", "z_image", None, "flow")
    assert "base or turbo" in record.evidence[-1]
    with pytest.raises(Refused, match=r"not bundled\. Give base_config=FOLDER"):
        loaded(file)
    actual, reference = loaded(file, folder), loaded(folder)
    expected = reference.denoiser.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in actual.denoiser.state_dict().items())
    assert any("have the same keys and shapes" in warning for warning in actual.warnings)


def test_the_names_are_those_diffusers_reads(tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
    from safetensors.torch import load_file

    folder = shared_folder("z_image")
    file = transformer_single_file(folder, tmp_path / "z.safetensors", z_image.FILE_NAMES, prefix="model.diffusion_model.")
    converted = convert_z_image_transformer_checkpoint_to_diffusers(load_file(file))
    expected = loaded(folder).denoiser.state_dict()
    assert converted.keys() == expected.keys() and all(tensor.equal(expected[name]) for name, tensor in converted.items())


def test_an_omni_build_is_refused(tmp_path: Path) -> None:
    folder = tiny_model("z_image", tmp_path / "omni")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "siglip_feat_dim": 16}))
    with pytest.raises(BadFile, match="Omni build"):
        loaded(folder, device="meta")


# --- adapters


@pytest.mark.parametrize(
    "names",
    [
        ("diffusion_model.layers.0.attention.qkv.lora_A.weight",),
        ("lora_unet_layers_0_attention_qkv.lora_down.weight",),
        ("transformer.layers.0.attention.to_q.lora_A.weight",),
        ("diffusion_model.context_refiner.1.attention.to_k.lora_A.weight",),
    ],
)
def test_its_adapters_are_known(names: tuple[str, ...], tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", dict.fromkeys(names, (4, 3840)))
    record = inspect(tmp_path / "x.safetensors")
    assert (record.kind, record.family, record.components) == ("adapter", "z_image", ("transformer",))


def test_lumina_s_layers_of_the_same_names_are_not_taken_for_its_own(tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", {"diffusion_model.layers.0.attention.qkv.lora_A.weight": (4, 2304)})
    assert inspect(tmp_path / "x.safetensors").family == "lumina2"


def test_a_fused_layer_is_split_without_loss(tmp_path: Path) -> None:
    """q, k and v share the down factor of the qkv layer; the products are the rows of the whole one's."""
    from safetensors.torch import save_file

    family, parts = tiny_parts("z_image")
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=generator), torch.randn(96, 2, generator=generator)
    start = "diffusion_model.layers.1.attention.qkv"
    save_file(
        {f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up, f"{start}.alpha": torch.tensor(1.0)}, tmp_path / "x.safetensors"
    )
    state, facts = family.lora_state(tmp_path / "x.safetensors", parts)
    products = [state[f"transformer.layers.1.attention.{m}.lora_B.weight"] @ state[f"transformer.layers.1.attention.{m}.lora_A.weight"]
                for m in ("to_q", "to_k", "to_v")]  # fmt: skip
    assert torch.cat(products).equal(up @ down)
    assert set(facts["metadata"]["transformer.alpha_pattern"].values()) == {1.0}
