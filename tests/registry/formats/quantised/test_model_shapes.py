"""Shapes of the model from the headers of quantised files, which adapters are held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.detect.compatibility import fits
from registry.errors import BadFile
from registry.formats.quantised.model_shapes import folder_tensors, model_header
from registry.tensors.layout import read_layout
from tests.quantised_files import gguf_file, quantised_file
from tests.tiny import shared_folder, tiny_adapter, tiny_single_file


def test_an_adapter_fits_a_base_however_it_is_quantised(tmp_path: Path) -> None:
    source = tiny_single_file(shared_folder("sd1"), tmp_path / "sd1.safetensors")
    adapter = tiny_adapter(shared_folder("sd1"), tmp_path / "adapter.safetensors")
    four, _ = quantised_file(source, tmp_path / "nf4.safetensors", "nf4", prefix="model.diffusion_model.")
    blocks, _ = gguf_file(source, tmp_path / "x.gguf", "Q8_0", prefix="model.diffusion_model.", architecture="sd1")
    assert all(fits(adapter, base).ok for base in (source, four, blocks))
    plain, packed = model_header(source).tensors, model_header(four).tensors
    assert {key: packed[key].shape for key in plain} == {key: info.shape for key, info in plain.items()}
    with pytest.raises(BadFile, match="is a GGUF file, whose weights are kept in blocks of a few bits"):
        read_layout(blocks)


def test_a_folder_too(tmp_path: Path) -> None:
    folder = shared_folder("flux1") / "transformer"
    (source,) = folder.glob("*.safetensors")
    quantised_file(source, tmp_path / "diffusion_pytorch_model.safetensors", "nf4_double")
    (tmp_path / "wide-diffusion_pytorch_model.safetensors").unlink()
    plain, packed = folder_tensors(folder), folder_tensors(tmp_path)
    assert {key: packed[key].shape for key in plain} == {key: info.shape for key, info in plain.items()}
