"""Where an adapter's modules are in a checkpoint: whole tensors, rows of fused ones, halves in the other order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.adapters.targets import TargetSlice, targets_of
from registry.tensors.layout import read_layout


def places(path: Path, shapes: dict[str, tuple[int, ...]], family: str | None = None) -> dict[tuple[str, str], tuple[TargetSlice, ...]]:
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path)
    return dict(targets_of(read_layout(path), family).targets)


def test_a_module_of_an_ldm_file_has_diffusers_name_too(tmp_path: Path) -> None:
    ldm = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    shapes = {ldm: (8, 6), "model.diffusion_model.input_blocks.3.0.op.weight": (4, 4, 3, 3)}
    found = places(tmp_path / "a.safetensors", shapes)
    assert found["denoiser", "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"] == (TargetSlice(ldm),)


def test_openclips_fused_attention_is_three_modules(tmp_path: Path) -> None:
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    found = places(tmp_path / "a.safetensors", {key: (12, 4)})
    names = [("text_encoder_2", f"encoder_layers_0_self_attn_{part}_proj") for part in "qkv"]
    assert [found[name] for name in names] == [(TargetSlice(key, rows),) for rows in ((0, 4), (4, 8), (8, 12))]


def test_a_fused_layer_of_flux_holds_diffusers_modules_as_rows(tmp_path: Path) -> None:
    key = "double_blocks.0.img_attn.qkv.weight"
    found = places(tmp_path / "a.safetensors", {key: (12, 4)}, "flux1")
    names = [("denoiser", f"transformer_blocks_0_attn_to_{part}") for part in "qkv"]
    assert [found[name] for name in names] == [(TargetSlice(key, rows),) for rows in ((0, 4), (4, 8), (8, 12))]


def test_diffusers_modules_hold_the_rows_of_a_fused_layer(tmp_path: Path) -> None:
    keys = [f"transformer_blocks.0.attn.to_{part}.weight" for part in "qkv"]
    found = places(tmp_path / "a.safetensors", dict.fromkeys(keys, (4, 4)), "flux1")
    whole = found["denoiser", "double_blocks_0_img_attn_qkv"]
    assert whole == tuple(TargetSlice(key, None, begin) for key, begin in zip(keys, (0, 4, 8), strict=True))


def test_the_last_modulation_of_flux_lands_with_its_halves_swapped(tmp_path: Path) -> None:
    found = places(tmp_path / "a.safetensors", {"norm_out.linear.weight": (8, 4)}, "flux1")
    swapped = (TargetSlice("norm_out.linear.weight", (0, 4), 4), TargetSlice("norm_out.linear.weight", (4, 8), 0))
    assert found["denoiser", "final_layer_adaLN_modulation_1"] == swapped


@pytest.mark.parametrize("family", [None, "sd1"])
def test_a_fused_layer_of_another_family_has_one_name(family: str | None, tmp_path: Path) -> None:
    found = places(tmp_path / "a.safetensors", {"double_blocks.0.img_attn.qkv.weight": (12, 4)}, family)
    assert list(found) == [("denoiser", "double_blocks_0_img_attn_qkv")]


def test_biases_are_found_under_their_module(tmp_path: Path) -> None:
    save_file(
        {"double_blocks.0.img_mlp.0.weight": torch.zeros(8, 4), "double_blocks.0.img_mlp.0.bias": torch.zeros(8)},
        tmp_path / "a.safetensors",
    )
    assert (
        targets_of(read_layout(tmp_path / "a.safetensors")).biases["denoiser", "double_blocks_0_img_mlp_0"]
        == "double_blocks.0.img_mlp.0.bias"
    )
