"""Numbers that are none are found by their exponents, in every dtype that has them."""

from pathlib import Path

import pytest
import torch

from registry.tensors.finite import PIECE, is_finite
from registry.tensors.layout import read_layout
from registry.tensors.mmap_files import MappedFiles
from tests.registry.merging.models import written

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_infinity_are_found_and_the_largest_numbers_are_none(dtype: torch.dtype, tmp_path: Path) -> None:
    most = torch.finfo(dtype).max
    values = {
        "fine": torch.tensor([0.0, -0.0, most, -most, torch.finfo(dtype).tiny], dtype=torch.float64).to(dtype),
        "nan": torch.tensor([1.0, float("nan")]).to(dtype),
        "infinite": torch.tensor([1.0, float("inf" if dtype != torch.float8_e4m3fn else "nan")]).to(dtype),
        "negative": torch.tensor([-float("inf" if dtype != torch.float8_e4m3fn else "nan"), 1.0]).to(dtype),
        "empty": torch.tensor([]).to(dtype),
    }
    file = written(tmp_path / "a.safetensors", values)
    layout, maps = read_layout(file), MappedFiles([file])
    assert {name for name, stored in layout.tensors.items() if is_finite(stored, maps)} == {"fine", "empty"}


def test_the_last_number_of_a_large_tensor_is_looked_at_and_whole_numbers_are_finite(tmp_path: Path) -> None:
    large = torch.zeros(PIECE // 2 + 3, dtype=torch.float16)
    large[-1] = float("nan")
    file = written(tmp_path / "a.safetensors", {"large": large, "whole": torch.full((4,), -1, dtype=torch.int16)})
    layout, maps = read_layout(file), MappedFiles([file])
    assert not is_finite(layout.tensors["large"], maps) and is_finite(layout.tensors["whole"], maps)
