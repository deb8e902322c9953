"""The SVD of LoKr, LoHa and sums from their factors: exact against the SVD of the whole delta, and never as large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from registry.adapters.combine import combined
from registry.adapters.delta import delta
from registry.adapters.factors import Keep, dense_spectrum
from registry.adapters.reader import Module, read_adapter
from registry.adapters.spectra import sum_spectrum
from tests.registry.adapters.made_adapters import random
from tests.registry.merging.models import written

NAME = "lora_unet_down_blocks_0_attentions_0_proj_in"
ALPHA = {"alpha": torch.tensor(3.0)}
CASES: dict[str, dict[str, torch.Tensor]] = {
    "lokr whole": {"lokr_w1": random(1, 4, 3), "lokr_w2": random(2, 10, 12)},
    "lokr of a convolution": {"lokr_w1": random(1, 4, 2), "lokr_w2": random(2, 5, 6, 3, 3)},
    "lokr with factors": {"lokr_w1": random(1, 4, 3), "lokr_w2_a": random(2, 10, 2), "lokr_w2_b": random(3, 2, 12)} | ALPHA,
    "lokr, both with factors": {
        "lokr_w1_a": random(1, 4, 2),
        "lokr_w1_b": random(2, 2, 3),
        "lokr_w2_a": random(3, 10, 2),
        "lokr_w2_b": random(4, 2, 12),
        **ALPHA,
    },
    "lokr, Tucker": {
        "lokr_w1": random(1, 4, 3),
        "lokr_t2": random(2, 2, 2, 3, 3),
        "lokr_w2_a": random(3, 2, 10),
        "lokr_w2_b": random(4, 2, 6),
    }
    | ALPHA,
    "loha": {"hada_w1_a": random(1, 40, 3), "hada_w1_b": random(2, 3, 36), "hada_w2_a": random(3, 40, 3), "hada_w2_b": random(4, 3, 36)}
    | ALPHA,
    "lora": {"lora_up.weight": random(1, 40, 4), "lora_down.weight": random(2, 4, 36)} | ALPHA,
}


def module(folder: Path, case: str) -> Module:
    file = folder / f"{case.replace(' ', '-')}.safetensors"
    (found,) = read_adapter(written(file, {f"{NAME}.{ending}": value for ending, value in CASES[case].items()})).modules
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_the_spectrum_is_that_of_the_whole_delta(case: str, weight: float, tmp_path: Path) -> None:
    one = module(tmp_path, case)
    whole = delta(one, weight=weight)
    wanted = dense_spectrum(whole)
    found = sum_spectrum([(one, weight)], lambda values: len(values))
    count = int((wanted.values > 1e-6 * wanted.values[0]).sum())  # values below are rounding
    assert torch.allclose(found.values[:count], wanted.values[:count], rtol=1e-5) and bool((found.values[count:] < 1e-5).all())
    assert found.shape == tuple(whole.shape)
    back = (found.u * found.values) @ found.vh
    assert torch.allclose(back.float(), whole.flatten(1), rtol=1e-4, atol=1e-5)
    assert abs(found.norm - float(whole.double().norm())) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_a_cut_is_the_best_of_its_rank(case: str, tmp_path: Path) -> None:
    """Eckart-Young: the error of rank 3 is the length of the values that are left out."""
    one = module(tmp_path, case)
    whole = delta(one).flatten(1)
    factors, energy = combined([(one, 1.0)], Keep(rank=3))
    values = torch.linalg.svdvals(whole.double())
    assert factors.rank == 3
    error = float((factors.product().flatten(1) - whole).norm())
    assert error == pytest.approx(float(values[3:].norm()), rel=1e-4)
    assert energy == pytest.approx(float(values[:3].square().sum() / values.square().sum()), rel=1e-6)


def test_all_of_it_is_exact(tmp_path: Path) -> None:
    for case in CASES:
        one = module(tmp_path, case)
        factors, energy = combined([(one, 1.0)], None)
        assert torch.allclose(factors.product(), delta(one), rtol=1e-4, atol=1e-4) and energy == pytest.approx(1.0)
    ranks = {case: combined([(module(tmp_path, case), 1.0)], None)[0].rank for case in CASES}
    assert ranks == {
        "lokr whole": 30,
        "lokr of a convolution": 10,
        "lokr with factors": 6,
        "lokr, both with factors": 4,
        "lokr, Tucker": 6,
        "loha": 9,
        "lora": 4,
    }


@pytest.mark.parametrize("others", [("loha", "lora"), ("lokr with factors", "lora"), ("lokr whole", "lora"), ("loha", "lokr with factors")])
def test_sums_of_kinds(others: tuple[str, str], tmp_path: Path) -> None:
    parts = [(module(tmp_path, others[0]), 0.5), (module(tmp_path, others[1]), -2.0)]
    whole = sum((delta(one, weight=weight).reshape(40, 36) for one, weight in parts), torch.zeros(40, 36))
    factors, _energy = combined(parts, Keep(energy=1.0))
    assert torch.allclose(factors.product(), whole, rtol=1e-4, atol=1e-4)
    assert factors.rank <= {"lokr whole": 36, "loha": 15}.get(others[0], 10)


@pytest.mark.parametrize(("case", "largest"), [("lokr whole", 12), ("lokr with factors", 4), ("loha", 9)])
def test_the_whole_delta_is_never_decomposed(case: str, largest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    svd = torch.linalg.svd

    def counted(matrix: torch.Tensor, **options: Any) -> Any:
        sides.append(max(matrix.shape))
        return svd(matrix, **options)

    monkeypatch.setattr(torch.linalg, "svd", counted)
    combined([(module(tmp_path, case), 1.0)], Keep(rank=4))
    assert max(sides) == largest
