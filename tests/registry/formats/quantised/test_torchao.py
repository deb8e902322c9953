"""torchao's files: its own numbers from a file that it wrote, a folder as diffusers writes one, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from registry.converting.adapter_layers import base_names
from registry.detect.inspect import inspect
from registry.errors import BadFile
from registry.formats.diffusers_folder import load_module
from registry.formats.quantised.weights_file import weights_file
from registry.quantised.skeleton import stored_titles
from registry.quantised.stored import StoredWeight
from registry.tensors.layout import quantised, read_layout
from tests.quantised_files import is_layer
from tests.tiny import shared_folder

WRITTEN = Path(__file__).parent / "torchao.safetensors"  # by bench/quantised/torchao_file.py, with torchao 0.18.0
TITLES = {"int8": "int8", "int8_groups": "int8", "intx": "int8", "fp8": "fp8", "fp8_tensor": "fp8"}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", TITLES)
def test_the_numbers_are_torchaos_own(name: str) -> None:
    file, expected = weights_file(WRITTEN), load_file(WRITTEN)[f"expected.{name}.weight"]
    with file.reading() as read:
        weight = read(f"{name}.weight")
    assert isinstance(weight, StoredWeight) and file.tensors[f"{name}.weight"].shape == (8, 64)
    assert torch.equal(weight.full(), expected) and weight.coding.title == f"{TITLES[name]} (torchao)"
    taken = weight.take(torch.tensor([5, 2]))
    assert taken is not None and torch.equal(taken.full(), expected[[5, 2]])


def torchao_folder(place: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny FLUX.1 whose transformer is in int8 as diffusers' save_pretrained writes torchao's, and the weights that it has then."""
    base = Path(shutil.copytree(shared_folder("flux1"), place / "flux1-int8"))
    tensors: dict[str, torch.Tensor] = {}
    wide, metadata, names = {}, {"format": "pt"}, []
    for key, tensor in load_file(base / "transformer" / WEIGHTS).items():
        kind: dict[str, Any] = {"_type": "Tensor"}
        wide[key] = tensors[key] = tensor
        names.append(key)
        if is_layer(key, tensor):
            scale = tensor.abs().amax(1, keepdim=True) / 127
            parts = {"qdata": (tensor / scale).round().to(torch.int8), "scale": scale, "zero_point": torch.zeros_like(scale).to(torch.int8)}
            del tensors[key]
            tensors |= {f"{key.removesuffix('weight')}_weight_{part}": one for part, one in parts.items()}
            wide[key] = parts["qdata"] * scale
            kind = {"_type": "Int8Tensor", "_data": {"block_size": [1, tensor.shape[1]]}, "_tensor_data_names": list(parts)}
        metadata[key] = json.dumps(kind)
    save_file(tensors, base / "transformer" / WEIGHTS, metadata={**metadata, "tensor_names": json.dumps(names)})
    config = json.loads((base / "transformer/config.json").read_text())
    config["quantization_config"] = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}
    (base / "transformer/config.json").write_text(json.dumps(config))
    return base, wide


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    return torchao_folder(tmp_path_factory.mktemp("torchao"))


def test_a_folder_is_read_as_it_is_stored(folder: tuple[Path, dict[str, torch.Tensor]]) -> None:
    from diffusers import FluxTransformer2DModel

    base, wide = folder
    found = load_module(FluxTransformer2DModel, base / "transformer", dtype=torch.float32)
    skeleton = load_module(FluxTransformer2DModel, base / "transformer", dtype=torch.float32, empty=True)
    assert stored_titles(found) == stored_titles(skeleton) == {"int8 (torchao)": 40}
    for name, weight in wide.items():
        module = found.get_submodule(name.rpartition(".")[0])
        assert torch.equal(getattr(module, name.rpartition(".")[2]), weight), name
    record = inspect(base)
    assert (record.family, record.variant, record.dtype) == ("flux1", "dev", "int8 scaled")


def test_its_layers_are_known_and_its_numbers_are_not_for_merging(folder: tuple[Path, dict[str, torch.Tensor]]) -> None:
    base, _ = folder
    assert base_names(base) == base_names(shared_folder("flux1"))
    strange = quantised(read_layout(base).tensors)
    assert strange is not None and strange.endswith("._weight_qdata") and quantised(read_layout(shared_folder("flux1")).tensors) is None


LAYER = "single_transformer_blocks.0.proj_out"
BEGIN = f"{LAYER}._weight_"


def declared(metadata: dict[str, str], **changes: Any) -> None:
    metadata[f"{LAYER}.weight"] = json.dumps(json.loads(metadata[f"{LAYER}.weight"]) | changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, _: tensors.pop(f"{BEGIN}scale"), "has no scale"),
        (lambda tensors, _: tensors.update({f"{LAYER}.weight": torch.ones(32, 160)}), "is there twice"),
        (lambda tensors, _: tensors.update({f"{BEGIN}zero_point": torch.ones(32, 1)}), "is quantised asymmetrically"),
        (lambda tensors, _: tensors.update({f"{BEGIN}scale": torch.ones(3, 1)}), r"has scales in F32 \(3, 1\), which are not those of"),
        (lambda tensors, _: tensors.update({f"{BEGIN}qdata": torch.ones(32, 160)}), "has codes in F32"),
        (
            lambda _, metadata: declared(metadata, _data={"block_size": [1, 32]}),
            r"has scales in F32 \(32, 1\), which are not those of blocks of \[1, 32\]",
        ),
        (
            lambda _, metadata: declared(metadata, _data=[]),
            r"has metadata that is not torchao's: a JSON with _type, _data and _tensor_data_names\.",
        ),
        (lambda _, metadata: metadata.update({f"{LAYER}.weight": "{"}), r"has metadata that is not torchao's: a JSON with _type"),
        (lambda _, metadata: declared(metadata, _type="NVFP4Tensor"), "is torchao's NVFP4Tensor; Int8Tensor, Intx"),
        (lambda _, metadata: declared(metadata, _tensor_data_names=["qdata", "scale", "act_pre_scale"]), "has act_pre_scale beside codes"),
        (
            lambda _, metadata: metadata.pop(f"{LAYER}.weight"),
            "has torchao's codes, and the header's metadata, which had its class, is gone",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_name(change: Any, words: str, folder: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    source, file = folder[0] / "transformer" / WEIGHTS, tmp_path / "x.safetensors"
    tensors = load_file(source)
    with safe_open(source, framework="pt") as opened:
        metadata = dict(opened.metadata())
    change(tensors, metadata)
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(BadFile, match=f"{LAYER}.weight {words}"):
        weights_file(file)
