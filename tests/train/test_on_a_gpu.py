"""Whole runs on a CUDA device: each saves a file that diffusers' loaders read on a fresh base, with the trained model's predictions."""

from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load_file

from registry.store import Store
from tests.tiny import shared_folder
from train import run
from train.config import LoraConfig, Precision, PreviewConfig, TrainConfig

Settings = Callable[..., TrainConfig]
WAYS: dict[str, dict[str, Any]] = {
    "bf16": {},
    "fp16": {"precision": Precision.fp16},
    "fp32": {"precision": Precision.fp32},
    "nf4": {"base_dtype": "nf4"},
    "int8": {"base_dtype": "int8", "compute": "int8"},
    "fp8": {"base_dtype": "fp8", "compute": "fp8"},
    "swapped": {"swap_blocks": 2, "gradient_checkpointing": True, "offload_activations": True},
    "text encoder": {"lora": LoraConfig(rank=2, text_encoder=True)},
    "dora": {"lora": LoraConfig(rank=2, kind="dora")},
    "previews": {"preview": PreviewConfig(prompts=["a red disc"], steps=2)},
    "planned": {"memory": "2GiB"},
    "compiled": {"compile": "blocks"},
}


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_the_saved_file_is_proven(way: str, settings: Settings, store: Store) -> None:
    lines: list[str] = []
    run.run(settings(device="cuda", **WAYS[way]), store, out=lines.append)
    assert any("verified on a fresh base" in line for line in lines)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["sdxl", "flux1", "sd3", "qwen_image"])
def test_other_families_are_trained_too(family: str, settings: Settings, store: Store) -> None:
    lines: list[str] = []
    run.run(settings(device="cuda", base=str(shared_folder(family)), resolution=64), store, out=lines.append)
    assert any("verified on a fresh base" in line for line in lines)


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_numbers(settings: Settings, store: Store) -> None:
    made = [run.run(settings(device="cuda", name=name), store) for name in ("one", "other")]
    one, other = (load_file(each.result["files"]["diffusers"]) for each in made)
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
