"""Lumina-Image 2: an instruction that negatives go without, rescaled guidance, time turned round, fused attention of shared heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from registry.detect.inspect import inspect
from registry.errors import Refused
from registry.families import FAMILIES, lumina2
from tests.registry.made import model
from tests.tiny import plain_pipeline, shared_folder, tiny_parts, transformer_single_file

PROMPTS = ["a red apple", "hi"]


def loaded(path: Path, base_config: Path | None = None) -> Any:
    return FAMILIES["lumina2"].load(path, dtype=torch.float32, device="cpu", base_config=base_config)


# --- text


def test_prompts_have_the_instruction_and_negatives_go_without() -> None:
    family, parts = tiny_parts("lumina2")
    with torch.no_grad():
        reference = plain_pipeline("lumina2").encode_prompt(list(PROMPTS), negative_prompt=list(PROMPTS))
        actual, negatives = family.encode_prompts(parts, PROMPTS), family.negatives(parts, PROMPTS)
        nothing = family.encode_unconditional(parts, 2)
    assert actual["embeds"].equal(reference[0]) and actual["mask"].equal(reference[1].bool())
    assert negatives["embeds"].equal(reference[2]) and negatives["mask"].equal(reference[3].bool())
    assert nothing["embeds"].equal(family.negatives(parts, ["", ""])["embeds"])
    assert not actual["embeds"].equal(negatives["embeds"]) and actual["mask"].dtype == torch.bool


def test_the_instruction_counts_among_the_tokens_that_fit() -> None:
    family, parts = tiny_parts("lumina2")
    needed, fit = family.count_tokens(parts, "hi")
    assert fit == 256 and int(family.encode_prompts(parts, ["hi"])["mask"].sum()) == needed > 100
    assert family.count_tokens(parts, "word " * 60)[0] > fit
    with pytest.raises(Refused, match="no layer to skip"):
        family.encode_prompts(parts, PROMPTS, clip_skip=1)


def test_padding_is_never_attended() -> None:
    family, parts = tiny_parts("lumina2")
    noisy, times = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100.0, 900.0])
    with torch.no_grad():
        state = family.encode_prompts(parts, PROMPTS)
        odd = {**state, "embeds": state["embeds"].masked_fill(~state["mask"][..., None], 9.0)}
        one, other = family.predict(parts, noisy, times, state), family.predict(parts, noisy, times, odd)
    assert float((one - other).abs().max()) <= 1e-6


# --- denoising


def test_guidance_keeps_the_length_of_each_row() -> None:
    conditional = torch.tensor([[[[3.0, 4.0], [6.0, 8.0]]]])
    unconditional = torch.tensor([[[[3.0, 0.0], [6.0, 8.0]]]])
    guided = lumina2.guide(conditional, unconditional, 2.0)  # combined: (3, 8) and (6, 8)
    assert torch.allclose(guided, torch.tensor([[[[15 / 73**0.5, 40 / 73**0.5], [6.0, 8.0]]]]))


def test_the_velocity_points_from_the_image_to_the_noise() -> None:
    """The module itself is given 1 at the image and answers image - noise."""
    family, parts = tiny_parts("lumina2")
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = family.encode_prompts(parts, PROMPTS[:1])
        actual = family.predict(parts, noisy, torch.tensor([250.0]), state)
        (reference,) = parts.denoiser(noisy, torch.tensor([0.75]), state["embeds"], state["mask"], return_dict=False)
    assert actual.equal(-reference)


# --- files


@pytest.mark.parametrize(("prefix", "original"), [("", True), ("model.diffusion_model.", True), ("", False)])
def test_a_single_file_takes_the_rest_from_base_config(prefix: str, original: bool, tmp_path: Path) -> None:
    folder = shared_folder("lumina2")
    file = transformer_single_file(folder, tmp_path / "lumina.safetensors", lumina2.FILE_NAMES, prefix=prefix, original=original)
    record = inspect(file)
    assert (record.kind, record.family, record.prediction.value) == ("checkpoint", "lumina2", "flow")
    with pytest.raises(Refused, match=r"not bundled\. Give base_config=FOLDER"):
        loaded(file)
    expected = loaded(folder).denoiser.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in loaded(file, folder).denoiser.state_dict().items())


def test_the_names_are_those_diffusers_reads() -> None:
    """diffusers' converter is written for the published width, so it is shown tensors of one column."""
    from diffusers.loaders.single_file_utils import convert_lumina2_to_diffusers

    generator = torch.Generator().manual_seed(0)
    file: dict[str, Any] = {}
    expected: dict[str, Any] = {}
    for layer in (one.numbered(["0"] * one.original.count("*")) for one in lumina2.LAYERS):
        rows = [2304, 768, 768] if len(layer.modules) > 1 else [4]
        tensor = torch.rand(sum(rows), 1, generator=generator)
        file[f"{layer.original}.weight"] = tensor
        expected |= {f"{own}.weight": piece for own, piece in zip(layer.modules, torch.split(tensor, rows), strict=True)}
    for actual, reference in lumina2.FILE_NAMES.others.items():
        file[reference.replace("*", "0")] = expected[actual.replace("*", "0")] = torch.rand(4, generator=generator)
    converted = convert_lumina2_to_diffusers(dict(file))
    assert converted.keys() == expected.keys()
    assert [name for name, tensor in converted.items() if not tensor.equal(expected[name])] == []


# --- adapters


@pytest.mark.parametrize(
    "name",
    [
        "diffusion_model.layers.0.attention.qkv.lora_A.weight",
        "lora_unet_layers_0_attention_qkv.lora_down.weight",
        "transformer.layers.0.attn.to_q.lora_A.weight",
    ],
)
def test_its_adapters_are_known(name: str, tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", {name: (4, 2304)})
    record = inspect(tmp_path / "x.safetensors")
    assert (record.kind, record.family, record.components) == ("adapter", "lumina2", ("transformer",))


def test_heads_that_are_shared_by_three_are_reported_by_their_rows() -> None:
    names = FAMILIES["lumina2"].adapter_names
    assert names is not None and names.original is not None
    found = names.denoiser.find("layers_3_attention_qkv")
    assert found is not None and found.layer.rows(2304) == (2304, 768, 768)
    assert names.original({"layers.0.attn.to_q": 2304}) and not names.original({"layers.0.attn.to_q": 48})


def test_a_text_encoder_s_lora_of_sd_scripts_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    family, parts = tiny_parts("lumina2")
    name = "lora_te_layers_0_self_attn_q_proj"
    save_file({f"{name}.lora_down.weight": torch.ones(2, 32), f"{name}.lora_up.weight": torch.ones(32, 2)}, tmp_path / "x.safetensors")
    state, _facts = family.lora_state(tmp_path / "x.safetensors", parts)
    assert set(state) == {f"text_encoder.layers.0.self_attn.q_proj.lora_{factor}.weight" for factor in "AB"}
