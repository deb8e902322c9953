"""Adapters as diffusers loads them: alpha from wherever the file has it, whatever spells its names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.adapters.peft_state import lora_settings
from registry.errors import BadFile
from tests.tiny import tiny_parts

MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def saved(path: Path, prefix: str, metadata: dict[str, str] | None = None) -> Path:
    save_file({f"{prefix}.lora_A.weight": torch.ones(2, 16), f"{prefix}.lora_B.weight": torch.ones(16, 2)}, path, metadata=metadata)
    return path


def scale(path: Path) -> float:
    """alpha / rank of the file's one module, as LoraConfig gets it."""
    family, parts = tiny_parts("sd1")
    state, facts = family.lora_state(path, parts)
    (key,) = (key for key in state if key.endswith("lora_A.weight"))
    assert key == f"unet.{MODULE}.lora_A.weight"
    settings = facts["metadata"]
    alphas = list(settings.get("unet.alpha_pattern", {}).values())
    return float(alphas[0] if alphas else settings["unet.lora_alpha"]) / len(state[key])


@pytest.mark.parametrize(("config", "expected"), [({"lora_alpha": 4}, 2.0), ({"lora_alpha": 4, "use_rslora": True}, 4 / math.sqrt(2))])
def test_pefts_folder_has_the_alpha_of_its_config(config: dict[str, object], expected: float, tmp_path: Path) -> None:
    path = saved(tmp_path / "adapter_model.safetensors", f"base_model.model.{MODULE}")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, **config}))
    assert scale(path) == pytest.approx(expected)


def test_diffusers_metadata_have_the_alpha(tmp_path: Path) -> None:
    settings = {"unet.r": 2, "unet.lora_alpha": 6, "unet.target_modules": [MODULE]}
    assert scale(saved(tmp_path / "a.safetensors", f"unet.{MODULE}", {"lora_adapter_metadata": json.dumps(settings)})) == 3.0


def test_without_alpha_the_scale_is_one(tmp_path: Path) -> None:
    assert scale(saved(tmp_path / "a.safetensors", f"unet.{MODULE}")) == 1.0


def test_a_lora_of_an_embedding_is_refused_by_name(tmp_path: Path) -> None:
    name = "text_encoder.text_model.embeddings.token_embedding"
    save_file({f"{name}.lora_embedding_A": torch.ones(2, 9), f"{name}.lora_embedding_B": torch.ones(9, 2)}, tmp_path / "a.safetensors")
    family, parts = tiny_parts("sd1")
    with pytest.raises(BadFile, match="holds LoRA of an embedding"):
        family.lora_state(tmp_path / "a.safetensors", parts)


def test_settings_are_counted_from_the_tensors() -> None:
    settings = lora_settings({"unet.a.lora_A.weight": torch.ones(2, 4), "unet.b.lora_A.weight": torch.ones(3, 4)}, {"unet.a": 1.0})
    assert (settings["unet.r"], settings["unet.lora_alpha"], settings["unet.target_modules"]) == (2, 1.0, ["a", "b"])
    assert settings["unet.rank_pattern"] == {"^a": 2, "^b": 3} and settings["unet.alpha_pattern"] == {"^a": 1.0, "^b": 3.0}
