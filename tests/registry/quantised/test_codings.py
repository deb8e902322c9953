"""Codes, scales and errors of each coding, against literals of bitsandbytes and torchao."""

import pytest
import torch

from registry.quantised.codings import CODINGS, NF4_LEVELS

# bitsandbytes 0.50.2, functional.quantize_4bit(torch.linspace(-1, 1, 64)[None], blocksize=64, quant_type="nf4") on the CPU
LINE = [0, 0, 1, 17, 17, 17, 18, 34, 34, 51, 52, 68, 69, 85, 102, 103, 120, 136, 153, 170, 171, 187, 204, 204, 221, 221, 238, 238, 238, 239]
LINE += [255, 255]


def again(name: str, weight: torch.Tensor) -> torch.Tensor:
    return CODINGS[name].make(CODINGS[name].quantise(weight), (weight.shape[0], weight.shape[1]))


def test_nf4_packs_as_bitsandbytes() -> None:
    assert CODINGS["nf4"].quantise(torch.linspace(-1, 1, 64)[None])[0].tolist() == LINE
    codes, scales = CODINGS["nf4"].quantise(torch.tensor([[0.1, -0.2, 0.3, 0.4] * 16]))
    assert codes[:4].tolist() == [162, 239, 162, 239] and scales.tolist() == [pytest.approx(0.4)]


def test_int8_has_127_steps_a_row() -> None:
    codes, scales = CODINGS["int8"].quantise(torch.tensor([[1.27, -0.635], [0.0, 0.0]]))
    assert codes.tolist() == [[127, -64], [0, 0]] and scales.flatten().tolist() == [pytest.approx(0.01), 1.0]


def test_fp8_is_e4m3_with_its_largest_number_at_448() -> None:
    """torchao 0.18.0, Float8WeightOnlyConfig: the same numbers, a scale of absmax / 448 a row."""
    codes, scales = CODINGS["fp8"].quantise(torch.tensor([[4.48, -2.24, 0.01]]))
    assert codes.tolist() == [[0x7E, 0xF6, 0x38]] and float(scales) == pytest.approx(0.01)


@pytest.mark.parametrize(("name", "least", "most"), [("int8", 0.002, 0.008), ("fp8", 0.02, 0.03), ("nf4", 0.08, 0.1)])
def test_errors_of_normal_weights(name: str, least: float, most: float) -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    assert least < float((again(name, weight) - weight).norm() / weight.norm()) < most


@pytest.mark.parametrize("shape", [(9, 30_000), (3, 70_000), (700, 100)])
def test_pieces_give_the_codes_of_the_whole_matrix_at_once(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    weight[1] = 0
    codes, scales = CODINGS["int8"].quantise(weight)
    largest = weight.abs().amax(1, keepdim=True) / 127
    assert scales.equal(torch.where(largest > 0, largest, torch.ones(())))
    assert codes.equal((weight / scales).round().to(torch.int8))
    whole = codes.float() * scales
    assert again("int8", weight).equal(whole)
    assert CODINGS["int8"].dequantise(codes, scales, shape, torch.bfloat16).equal(whole.bfloat16()), "rounded once, from fp32"
    squares = CODINGS["int8"].squares(weight, codes, scales)
    expected = [float(one.double().square().sum()) for one in (weight, whole - weight)]
    assert squares == pytest.approx(expected, rel=1e-5)


def test_nf4_counts_the_boundaries_below_a_share_its_nearest_neighbours_too() -> None:
    levels = torch.tensor(NF4_LEVELS)
    boundaries = (levels[1:] + levels[:-1]) / 2
    near = [boundaries, *(boundaries.nextafter(torch.tensor(end)) for end in (-2.0, 2.0)), levels, torch.linspace(-1, 1, 6239)]
    shares = torch.cat(near).reshape(-1, 63)
    blocks = torch.cat([torch.ones(len(shares), 1), shares], dim=1)  # the largest number of each is 1, so that shares stay as they are
    expected = torch.bucketize(blocks, boundaries).flatten()
    codes, _ = CODINGS["nf4"].quantise(blocks)
    assert torch.stack([codes >> 4, codes & 15], dim=1).flatten().equal(expected.to(torch.uint8))


@pytest.mark.parametrize("name", list(CODINGS))
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (7, 64), (2, 96)])
def test_any_shape_comes_back_and_is_counted(name: str, shape: tuple[int, int]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    kept, empty = CODINGS[name].quantise(weight), CODINGS[name].empty(shape)
    assert sum(buffer.nbytes for buffer in kept) == CODINGS[name].bytes_of(shape)
    assert [(one.shape, one.dtype) for one in kept] == [(one.shape, one.dtype) for one in empty]
    assert len(kept) == len(CODINGS[name].buffers) == len(CODINGS[name].sizes(shape))
    assert list(again(name, weight).shape) == list(shape)
    assert again(name, torch.zeros(shape)).abs().max() == 0
