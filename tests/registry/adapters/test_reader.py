"""The adapter reader: one list of modules for every dialect, with scale, rank and the keys they were read from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.adapters.reader import Module, read_adapter
from registry.errors import BadFile

DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = DOTTED.replace(".", "_")
LDM = "input_blocks_1_1_transformer_blocks_0_attn1_to_q"
CANONICAL = ("denoiser", FLAT)


def saved(path: Path, name: str, down: str, up: str, *, alpha: float | None = None, **metadata: str) -> Path:
    draw = torch.Generator().manual_seed(1)
    tensors = {f"{name}{down}": torch.randn(2, 6, generator=draw), f"{name}{up}": torch.randn(8, 2, generator=draw)}
    if alpha is not None:
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata=metadata or None)
    return path


def only(path: Path) -> Module:
    (module,) = read_adapter(path).modules
    return module


@pytest.mark.parametrize(
    ("name", "down", "up", "dialect"),
    [
        (f"lora_unet_{FLAT}", ".lora_down.weight", ".lora_up.weight", "kohya"),
        (f"lora_unet_{LDM}", ".lora_down.weight", ".lora_up.weight", "kohya"),
        (f"unet.{DOTTED}", ".lora_A.weight", ".lora_B.weight", "diffusers"),
        (f"unet.{DOTTED}", ".lora_A.default.weight", ".lora_B.default.weight", "diffusers"),
        (f"unet.{DOTTED}", ".lora.down.weight", ".lora.up.weight", "diffusers_old"),
        (f"base_model.model.{DOTTED}", ".lora_A.weight", ".lora_B.weight", "peft"),
        (f"lycoris_{FLAT}", ".lora_down.weight", ".lora_up.weight", "lycoris"),
        (f"lora_transformer_{FLAT}", ".lora_down.weight", ".lora_up.weight", "onetrainer"),
        (f"diffusion_model.{DOTTED}", ".lora_A.weight", ".lora_B.weight", "bfl"),
    ],
)
def test_a_module_is_the_same_in_every_dialect(name: str, down: str, up: str, dialect: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", name, down, up)
    module = only(path)
    assert read_adapter(path).dialect == dialect
    assert (module.place, module.name, module.algorithm, module.rank) == (CANONICAL, name, "lora", 2)
    values = load_file(path)
    assert module.raw("down").equal(values[f"{name}{down}"]) and module.raw("up").equal(values[f"{name}{up}"])
    assert module.raw_tensors().keys() == {down, up}


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "text_encoder_2"),
        ("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q", "text_encoder_3"),
    ],
)
def test_the_prefix_gives_the_component(name: str, component: str, tmp_path: Path) -> None:
    assert only(saved(tmp_path / "a.safetensors", name, ".lora_down.weight", ".lora_up.weight")).component == component


def test_alpha_comes_from_the_tensor_then_the_metadata_then_the_config_beside(tmp_path: Path) -> None:
    settings = json.dumps({"unet.r": 2, "unet.lora_alpha": 4})
    kohya = saved(tmp_path / "a.safetensors", f"lora_unet_{FLAT}", ".lora_down.weight", ".lora_up.weight", alpha=1.0)
    diffusers = saved(tmp_path / "b.safetensors", f"unet.{DOTTED}", ".lora_A.weight", ".lora_B.weight", lora_adapter_metadata=settings)
    peft = saved(tmp_path / "adapter_model.safetensors", f"base_model.model.{DOTTED}", ".lora_A.weight", ".lora_B.weight")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 8, "use_rslora": True}))
    assert only(kohya).scale(2) == 0.5
    assert only(diffusers).scale(2) == 2.0
    assert only(peft).scale(2) == pytest.approx(8 / math.sqrt(2))


def test_without_alpha_the_scale_is_one(tmp_path: Path) -> None:
    assert only(saved(tmp_path / "a.safetensors", f"unet.{DOTTED}", ".lora_A.weight", ".lora_B.weight")).scale(2) == 1.0


def test_keys_of_no_module_are_left(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", f"unet.{DOTTED}", ".lora_A.weight", ".lora_B.weight")
    save_file(load_file(path) | {"something.else": torch.zeros(1)}, path)
    assert read_adapter(path).left == ("something.else",)


def test_a_checkpoint_is_no_adapter(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.out.2.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(BadFile, match="has no keys of an adapter"):
        read_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize("entry", ["{", "[1]", "null"])
def test_damaged_settings_are_refused_and_their_scale_never_guessed(entry: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", f"unet.{DOTTED}", ".lora_A.weight", ".lora_B.weight", lora_adapter_metadata=entry)
    with pytest.raises(BadFile, match="damaged lora_adapter_metadata"):
        read_adapter(path)


def test_empty_settings_are_sound(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", f"unet.{DOTTED}", ".lora_A.weight", ".lora_B.weight", lora_adapter_metadata="{}")
    assert only(path).scale(2) == 1.0
