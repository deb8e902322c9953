"""Scales that are quantised once more: bitsandbytes' own numbers, and what is lost and saved by it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from registry.quantised.codings import CODINGS
from registry.quantised.double import quantised_scales, scales_of

WRITTEN = Path(__file__).parents[1] / "formats/quantised/bitsandbytes.safetensors"  # by bench/quantised/bitsandbytes_file.py
NAME = "nf4_double.weight"


def test_codes_scales_and_weight_are_bitsandbytes_own() -> None:
    """Of the weight that its file has: randn(8, 128)."""
    tensors, weight = load_file(WRITTEN), torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    state = json.loads(bytes(tensors[f"{NAME}.quant_state.bitsandbytes__nf4"].tolist()))
    kept = codes, scales, largest, offset = CODINGS["nf4-dq"].quantise(weight)
    assert codes.equal(tensors[NAME].flatten()) and scales.equal(tensors[f"{NAME}.absmax"])
    assert largest.equal(tensors[f"{NAME}.nested_absmax"]) and float(offset) == pytest.approx(state["nested_offset"], abs=0)
    assert CODINGS["nf4-dq"].make(kept, (8, 128)).equal(tensors[f"expected.{NAME}"])


def test_scales_come_back_to_the_nearest_of_256_levels() -> None:
    """The levels lie closer together towards 0: 0.7 % of the largest apart at most, so half of that is lost."""
    scales = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.5
    codes, largest, offset = quantised_scales(scales)
    assert (codes.dtype, codes.shape, largest.shape, offset.shape) == (torch.uint8, (1000,), (4,), (1,))
    apart = (scales_of(codes, largest, offset) - scales).abs().reshape(-1)
    assert 0 < apart.max() <= 0.5 * 0.0145 * largest.max()


def test_equal_scales_and_zeros_are_kept_as_they_are() -> None:
    for scales in (torch.full((300,), 0.25), torch.zeros(5)):
        assert scales_of(*quantised_scales(scales)).equal(scales)


def test_an_eighth_of_a_percent_is_lost_and_a_twelfth_of_the_bytes_saved() -> None:
    weight = torch.randn(512, 640, generator=torch.Generator().manual_seed(0)) * 0.03
    errors = [
        (wide[1] / wide[0]) ** 0.5 for name in ("nf4", "nf4-dq") if (wide := CODINGS[name].squares(weight, *CODINGS[name].quantise(weight)))
    ]
    assert errors[0] < errors[1] < 1.00125 * errors[0]
    assert CODINGS["nf4-dq"].bytes_of((512, 640)) / CODINGS["nf4"].bytes_of((512, 640)) == pytest.approx(4.127 / 4.5, abs=1e-3)
