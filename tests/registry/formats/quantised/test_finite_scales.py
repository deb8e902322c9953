"""A scale that is no number makes a whole group of weights none: refused when it is read, by the weight's name."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from registry.errors import BadFile
from registry.formats.quantised.weights_file import weights_file
from registry.quantised.ggml import TYPES, coding_of
from registry.quantised.stored import StoredWeight
from tests.quantised_files import FORMS

HERE = Path(__file__).parent
WRITTEN = {  # by torchao and bitsandbytes themselves: file, weight -> the tensor with its scales
    "torchao.safetensors": {"int8": "_weight_scale", "fp8": "_weight_scale", "fp8_tensor": "_weight_scale"},
    "bitsandbytes.safetensors": {"nf4": "weight.absmax", "nf4_double": "weight.nested_absmax", "fp4": "weight.absmax", "int8": "SCB"},
}
CASES = [(file, name, scale) for file, scales in WRITTEN.items() for name, scale in scales.items()]


def fault(file: Path, key: str) -> str:
    """What is said of a weight when it is read."""
    with weights_file(file).reading() as read, pytest.raises(BadFile) as raised:
        read(key)
    return str(raised.value)


@pytest.mark.parametrize(("file", "name", "scale"), CASES)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_in_a_file_that_another_tool_wrote(file: str, name: str, scale: str, number: float, tmp_path: Path) -> None:
    tensors = load_file(HERE / file)
    tensors[f"{name}.{scale}"].view(-1)[-1] = number
    with safe_open(HERE / file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
    assert f"has a scale of {name}.weight that is not finite (" in fault(tmp_path / "x.safetensors", f"{name}.weight")


@pytest.mark.parametrize(("form", "scale"), [("comfy_old", "scale_weight"), ("rows", "weight_scale"), ("blocks", "weight_scale_inv")])
def test_in_scaled_fp8(form: str, scale: str, tmp_path: Path) -> None:
    parts = {f"a.0.{key}": tensor for key, tensor in FORMS[form][0](torch.randn(8, 16))[0].items()}
    parts[f"a.0.{scale}"] = torch.full_like(parts[f"a.0.{scale}"], float("inf"))
    save_file(parts, tmp_path / "x.safetensors")
    assert "has a scale of a.0.weight that is not finite (" in fault(tmp_path / "x.safetensors", "a.0.weight")


def test_in_gguf(tmp_path: Path) -> None:
    data = quants.quantize(np.ones((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    data[3, 34:36] = np.frombuffer(np.float16("nan").tobytes(), np.uint8)  # the scale of the last row's second block
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "flux")
    writer.add_tensor("a.0.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "has a scale of a.0.weight that is not finite (" in fault(tmp_path / "x.gguf", "a.0.weight")


@pytest.mark.parametrize("name", list(TYPES))
def test_scales_are_where_ggmls_types_have_them(name: str) -> None:
    """Of the bytes of a block those in fp16 alone can make a number that is none, each by itself."""
    size, coding = TYPES[name].bytes, coding_of(name)
    own = set(TYPES[name].halves)
    for begin in range(0, size, 2):
        data = torch.ones(1, size, dtype=torch.uint8)
        data[0, begin : begin + 2] = torch.tensor([0, 0x7C], dtype=torch.uint8)  # infinity in fp16
        finite = bool(coding.make((data,), (1, TYPES[name].weights)).isfinite().all())
        weight = StoredWeight(coding, (data,), (1, TYPES[name].weights))
        assert finite is (begin not in own) and weight.has_finite_scales is finite, begin
