"""Blocks of ggml's types, held against the GGUF package's own dequantisers, bit for bit, and against diffusers' layer."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import quants

from registry.quantised.ggml import TYPES, coding_of, row_bytes


def random_blocks(name: str, rows: int, count: int) -> np.ndarray:
    """Any codes there are, with scales that are numbers: fp16 whose exponent is not that of infinity."""
    data = np.random.default_rng(0).integers(0, 256, (rows, count * TYPES[name].bytes), dtype=np.uint8)
    return data & 0xBF  # bit 6 of every byte, which is in an exponent's highest bit wherever the fp16 begins


@pytest.mark.parametrize("name", list(TYPES))
def test_the_numbers_are_those_of_the_package_bit_for_bit(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    assert gguf.GGML_QUANT_SIZES[kind] == (TYPES[name].weights, TYPES[name].bytes)
    data = random_blocks(name, 24, 3)
    expected = quants.dequantize(data, kind)
    found = coding_of(name).make((torch.from_numpy(data),), expected.shape)
    assert np.isfinite(expected).all() and found.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q5_1"])
def test_and_of_weights_that_the_package_quantised(name: str) -> None:
    kind, weight = gguf.GGMLQuantizationType[name], torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    data = quants.quantize(weight.numpy(), kind)
    assert data.shape == row_bytes(name, (8, 64))
    found = coding_of(name).make((torch.from_numpy(data),), (8, 64))
    assert found.numpy().tobytes() == quants.dequantize(data, kind).tobytes() and float((found - weight).norm() / weight.norm()) < 0.1


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q5_0"])
def test_the_layer_computes_as_diffusers_own(name: str) -> None:
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
    from torch import nn

    from registry.quantised.linear import QuantisedLinear
    from registry.quantised.stored import StoredWeight

    data, inputs = torch.from_numpy(random_blocks(name, 16, 2)), torch.randn(4, 2 * TYPES[name].weights)
    other = GGUFLinear(inputs.shape[1], 16, bias=False, compute_dtype=torch.float32)
    other.weight = GGUFParameter(data, quant_type=gguf.GGMLQuantizationType[name])
    layer = QuantisedLinear(nn.Linear(inputs.shape[1], 16, bias=False, device="meta"), coding_of(name))
    layer.set_stored(StoredWeight(coding_of(name), (data,), (16, inputs.shape[1])), torch.float32)
    found, expected = layer(inputs), other(inputs)
    assert torch.allclose(found, expected, rtol=0, atol=2e-3 * float(found.abs().max()))  # diffusers rounds scales and weights to fp16


def test_rows_of_blocks_that_go_on_from_one_row_into_the_next_are_not_cut() -> None:
    coding, codes = coding_of("Q8_0"), torch.zeros(3, 34, dtype=torch.uint8)
    assert coding.rows((codes,), (3, 32), torch.tensor([2, 0])) is not None
    assert coding.rows((codes,), (6, 16), torch.tensor([2, 0])) is None and row_bytes("Q8_0", (6, 16)) is None
