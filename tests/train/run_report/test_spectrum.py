"""Singular values against numpy's own of the whole delta, and the sentence on the rank."""

from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import Refused
from train.run_report.spectrum import spectrum_of

LAYER = "unet.down_blocks.{}.attentions.0.transformer_blocks.0.attn1.to_q"


def adapter(folder: Path, layers: dict[str, tuple[torch.Tensor, torch.Tensor]], alpha: float) -> Path:
    """A LoRA file of factors (up, down), with an alpha."""
    tensors: dict[str, torch.Tensor] = {}
    for name, (up, down) in layers.items():
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.alpha": torch.tensor(alpha)}
    path = folder / "adapter.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_values_are_those_of_the_whole_delta(tmp_path: Path) -> None:
    torch.manual_seed(0)
    up, down = torch.randn(12, 4), torch.randn(4, 10)
    found = spectrum_of(adapter(tmp_path, {LAYER.format(0): (up, down)}, alpha=2.0))
    assert found is not None and [group.name.split()[-1] for group in found.groups] == ["down_blocks_0"]
    expected = numpy.linalg.svd((up @ down).double().numpy() * 2.0 / 4, compute_uv=False)[:4]
    assert found.groups[0].values == pytest.approx(expected, rel=1e-5)
    energy = numpy.cumsum(expected**2) / (expected**2).sum()
    assert found.whole.directions == int((energy < 0.9).sum()) + 1 and found.whole.half == pytest.approx(energy[1], rel=1e-5)


@pytest.mark.parametrize(("values", "words"), [((4.0, 1.0, 0.01, 0.01), "larger than is used"), ((1.0, 1.0, 1.0, 1.0), "is in use")])
def test_a_rank_that_is_not_used_is_said(tmp_path: Path, values: tuple[float, ...], words: str) -> None:
    """90 % of 16 + 1 lies in the first value; of four equal ones in all four."""
    factors = torch.eye(6)[:, :4] * torch.tensor(values), torch.eye(4, 5)
    found = spectrum_of(adapter(tmp_path, {LAYER.format(number): factors for number in (0, 1)}, alpha=4.0))
    assert found is not None and words in found.sentence() and found.whole.layers == 2
    assert found.whole.directions == (1 if values[0] == 4.0 else 4)
    assert found.whole.norm == pytest.approx((2 * sum(value**2 for value in values)) ** 0.5)


def test_an_adapter_that_changes_nothing_is_said(tmp_path: Path) -> None:
    found = spectrum_of(adapter(tmp_path, {LAYER.format(0): (torch.zeros(6, 2), torch.ones(2, 5))}, alpha=2.0))
    assert found is not None and found.whole.directions == 0 and "changes nothing" in found.sentence()


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="NaN"):
        spectrum_of(adapter(tmp_path, {LAYER.format(0): (torch.full((6, 2), float("nan")), torch.ones(2, 5))}, alpha=2.0))
