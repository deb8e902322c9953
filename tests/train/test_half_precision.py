"""Whole runs with `precision=bf16`, what auto is on a GPU: each ends with a file that is proven on a fresh base, and no other file is."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.errors import JobFailed
from registry.families import FAMILIES
from registry.store import Store
from train import run
from train.config import LoraConfig, OptimConfig, Precision, TrainConfig
from train.output import export
from train.output.finish import _proof
from train.settings.lora import LoraParams

Settings = Callable[..., TrainConfig]
Tensors = dict[str, torch.Tensor]
WAYS: dict[str, dict[str, Any]] = {
    "convolutions": {"lora": LoraConfig(rank=2, targets="convolutions")},
    "oft": {"steps": 3, "batch_size": 1, "lora": LoraConfig(kind="oft", rank=4, targets="attention_mlp")},
    "8-bit products": {"base_dtype": "int8", "compute": "int8", "lora": LoraConfig(kind="lokr", rank=2)},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_saved_file_is_proven(way: str, settings: Settings, store: Store) -> None:
    lines: list[str] = []
    run.run(settings(precision=Precision.bf16, **({"steps": 2} | WAYS[way])), store, out=lines.append)
    assert any("verified on a fresh base" in line for line in lines)
    assert store.find("discs", kind="adapter").path is not None


def swapped(tensors: Tensors) -> Tensors:
    one, other = (next(name for name in tensors if f"attn1.{layer}.lora_B" in name) for layer in ("to_q", "to_k"))
    return tensors | {one: tensors[other], other: tensors[one]}


def dropped(tensors: Tensors) -> Tensors:
    layer = next(iter(tensors)).partition(".lora_")[0]
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{layer}.lora_")}


def scaled(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if ".lora_B" in name)
    return tensors | {name: tensors[name] * 1.5}


def without_magnitude(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if "magnitude" in name)
    return tensors | {name: torch.zeros_like(tensors[name])}


LITTLE = {
    "lora": LoraConfig(rank=2),
    "dora": LoraConfig(kind="dora", rank=2),
    "pissa": LoraConfig(rank=2, params=LoraParams(init="pissa")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LITTLE)
def test_another_file_is_refused_however_little_was_trained(
    kind: str, settings: Settings, prepared: Callable[[TrainConfig], Any], base: Path, tmp_path: Path
) -> None:
    """At this rate a change is far below the rounding of bf16 weights, and near that of fp32's beside PiSSA's first factors."""
    work = prepared(settings(precision=Precision.bf16, optim=OptimConfig(lr=1e-5), lora=LITTLE[kind]))
    work.state.step(0)
    kept, path = _proof(work), tmp_path / "adapter.safetensors"
    family, fresh = work.state.family, FAMILIES["sd1"].load(base, dtype=torch.bfloat16, device="cpu")
    header = export.metadata(family, work.state.modules, title="a", facts={}, manifest={})
    export.write_adapter(path, work.state.modules, header)
    trained = load_file(path)
    export.verify(path, family, copy.deepcopy(fresh), kept)
    for wrong in (swapped, dropped, scaled, *([without_magnitude] if kind == "dora" else [])):
        save_file(wrong(trained), path, metadata=header)
        with pytest.raises(JobFailed, match="finds other products than were trained"):
            export.verify(path, family, copy.deepcopy(fresh), kept)
