"""Detection of what peft itself saves: every kind of adapter it has, with its adapter_config.json beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from registry.detect.inspect import inspect
from registry.errors import BadFile
from registry.formats.hashing import hash_file
from registry.record import Record
from registry.store import Store

BLOCK = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0"
TARGETS = ["to_q", "to_k", "to_v"]


class Attention(nn.Module):
    """The layers of one cross-attention of a UNet, under its names."""

    def __init__(self) -> None:
        super().__init__()
        attention = nn.ModuleDict({"to_q": nn.Linear(320, 320), "to_k": nn.Linear(768, 320), "to_v": nn.Linear(768, 320)})
        block = nn.ModuleDict({"attn2": attention, "norm": nn.LayerNorm(320), "proj": nn.Conv2d(8, 8, 3)})
        inside = nn.ModuleDict({"transformer_blocks": nn.ModuleList([block])})
        self.down_blocks = nn.ModuleList([nn.ModuleDict({"attentions": nn.ModuleList([inside])})])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def saved(folder: Path, config: Any) -> Path:
    """The weights file that peft saves for this config."""
    import peft

    torch.manual_seed(0)
    peft.get_peft_model(Attention(), config).save_pretrained(folder)
    return folder / "adapter_model.safetensors"


def seen(folder: Path, config: Any) -> Record:
    record = inspect(saved(folder, config))
    assert (record.kind, record.dialect) == ("adapter", "peft")
    return record


def codes(record: Record) -> list[str]:
    return [warning.code for warning in record.warnings]


def test_lora_has_the_alpha_of_the_config_beside_it(tmp_path: Path) -> None:
    import peft

    record = seen(tmp_path, peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, base_model_name_or_path="sd15"))
    assert (record.family, record.algorithms, record.rank, record.alpha, record.dora) == ("sd1", ("lora",), 4, 8.0, False)
    assert record.components == ("unet",) and codes(record) == []
    assert any("adapter_config.json" in reason for reason in record.evidence)


def test_the_base_that_the_config_names_is_a_parent(tmp_path: Path) -> None:
    import peft

    path = saved(tmp_path, peft.LoraConfig(r=4, target_modules=TARGETS))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "owner/base"}))
    assert inspect(path).parents == ({"role": "base", "ref": "owner/base", "sha256": None},)
    (tmp_path / "adapter_config.json").write_text("{")  # damaged: nothing is reported, nothing fails
    assert inspect(path).alpha == 4.0


@pytest.mark.parametrize(
    ("settings", "rank", "alpha", "dora", "components"),
    [
        ({"use_dora": True}, 4, 8.0, True, ("unet",)),
        ({"use_rslora": True}, 4, 8.0, False, ("unet",)),
        ({"target_modules": [*TARGETS, "proj"]}, 4, 8.0, False, ("unet", "conv")),
        ({"rank_pattern": {"to_k": 8}}, None, 8.0, False, ("unet",)),
        ({"alpha_pattern": {"to_k": 16}}, 4, None, False, ("unet",)),
    ],
    ids=["dora", "rslora", "conv", "ranks", "alphas"],
)
def test_loras_of_every_setting(
    tmp_path: Path, settings: dict[str, Any], rank: int | None, alpha: float | None, dora: bool, components: tuple[str, ...]
) -> None:
    import peft

    record = seen(tmp_path, peft.LoraConfig(**{"r": 4, "target_modules": TARGETS, **settings}))
    assert (record.family, record.rank, record.alpha, record.dora, record.components) == ("sd1", rank, alpha, dora, components)
    if rank is None:
        assert record.metadata["ranks"] == {"4": 2, "8": 1}


@pytest.mark.parametrize(
    ("kind", "settings", "algorithm", "family"),
    [
        ("LoHaConfig", {"r": 4}, "loha", "sd1"),
        ("LoKrConfig", {"r": 4}, "lokr", "sd1"),
        ("IA3Config", {"feedforward_modules": []}, "ia3", None),
        ("OFTConfig", {"r": 8, "oft_block_size": 0}, "oft", "sd1"),
        ("BOFTConfig", {"boft_block_size": 4}, "boft", "sd1"),
    ],
)
def test_other_algorithms(tmp_path: Path, kind: str, settings: dict[str, Any], algorithm: str, family: str | None) -> None:
    import peft

    record = seen(tmp_path, getattr(peft, kind)(target_modules=["to_q", "to_k"], **settings))
    assert (record.algorithms, record.family, record.components) == ((algorithm,), family, ("unet",))
    assert family or set(record.candidates) >= {"sd1", "sdxl"}  # their tensors do not show what the layers read


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("VeraConfig", {"r": 4, "target_modules": ["to_q"]}), ("FourierFTConfig", {"n_frequency": 9, "target_modules": TARGETS})],
)
def test_what_no_algorithm_here_can_apply_is_an_adapter_and_said_to_be_so(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    import peft

    record = seen(tmp_path, getattr(peft, kind)(**settings))
    assert record.algorithms == () and codes(record) == ["unknown-algorithm"]


@pytest.mark.parametrize("settings", [{"modules_to_save": ["norm"]}, {"bias": "lora_only"}], ids=["modules_to_save", "bias"])
def test_tensors_beside_the_adapters_own_are_reported(tmp_path: Path, settings: dict[str, Any]) -> None:
    import peft

    assert codes(seen(tmp_path, peft.LoraConfig(r=4, target_modules=TARGETS, **settings))) == ["other-tensors"]


def test_the_content_hash_knows_the_alpha_beside_the_file(tmp_path: Path) -> None:
    import peft

    first, second = (
        hash_file(saved(tmp_path / str(alpha), peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=TARGETS)))[0] for alpha in (4, 8)
    )
    assert first.sha256 == second.sha256 and first.content_sha256 != second.content_sha256


def test_a_folder_that_peft_saved_is_its_weights(tmp_path: Path) -> None:
    """Everywhere a model is named: registered, shown, and asked whether it fits, with the alpha of its config."""
    import peft

    folder = tmp_path / "ink"
    saved(folder, peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    store = Store(tmp_path / "home")
    for record in (inspect(folder), store.find(str(folder)), store.add(folder), store.find("ink")):
        assert (record.path, record.name, record.kind, record.alpha) == (str(folder / "adapter_model.safetensors"), "ink", "adapter", 8.0)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(BadFile, match=r"Name the file adapter_model\.safetensors in it"):
        inspect(folder)
