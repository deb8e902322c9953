"""The SVD of LoKr, LoHa and sums from their factors: exact against the SVD of the whole delta, and never as large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from registry.adapters.combine import combined
from registry.adapters.delta import delta
from registry.adapters.factors import LEAST, Keep, dense_spectrum, first_spectrum
from registry.adapters.reader import Module, read_adapter
from registry.adapters.spectra import sum_spectrum
from registry.errors import Refused
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
    found = sum_spectrum([(one, weight)], lambda values, _square: len(values))
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


# --- the first values alone


N, M = LEAST + 20, LEAST + 60
SPREADS = {
    "even": torch.linspace(1, 0.5, N),
    "steep": torch.logspace(0, -9, N),
    "of rank 20": torch.cat([torch.ones(20), torch.zeros(N - 20)]),
    "equal": torch.ones(N),
    "nothing": torch.zeros(N),
}


def with_values(values: torch.Tensor) -> torch.Tensor:
    """A matrix (N, M) with these singular values and random vectors, fp64."""
    left, right = (torch.linalg.qr(random(seed, size, len(values)).double())[0] for seed, size in ((1, N), (2, M)))
    matrix: torch.Tensor = (left * values.double()) @ right.T
    return matrix


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("spread", SPREADS)
def test_the_first_values_are_those_of_the_whole(spread: str, turned: bool) -> None:
    matrix = with_values(SPREADS[spread])
    matrix = matrix.T if turned else matrix
    found, wanted = first_spectrum(matrix, 24), dense_spectrum(matrix)
    assert found.whole == pytest.approx(wanted.square, rel=1e-12) and found.shape == wanted.shape
    assert torch.allclose(found.values, wanted.values[:24], rtol=0, atol=1e-13)
    assert torch.allclose(found.vh @ found.vh.T, torch.eye(24).double()) and torch.allclose(found.u.T @ found.u, torch.eye(24).double())
    assert torch.allclose(matrix @ found.vh.T, found.u * found.values, atol=1e-11)  # each pair is one of this matrix
    assert torch.allclose(matrix.T @ found.u, found.vh.T * found.values, atol=1e-11)
    assert found.energy(9) == pytest.approx(wanted.energy(9), rel=1e-12)
    if spread in ("even", "steep"):  # of equal values any vectors are the first
        assert torch.allclose(found.cut(24).product(), wanted.cut(24).product(), atol=1e-7)


def test_values_that_a_gram_matrix_does_not_tell_apart_are_found_by_the_whole_decomposition() -> None:
    """A floor of a millionth under eight values: its squares differ by less than fp64 has."""
    matrix = with_values(torch.cat([torch.ones(8), 1e-6 * torch.linspace(1, 0, N - 8)]))
    found = first_spectrum(matrix, 24)
    assert found.whole is None and torch.equal(found.values, dense_spectrum(matrix).values)


def test_all_values_are_found_where_the_first_would_take_as_long() -> None:
    small, many = random(1, LEAST - 1, LEAST), random(1, LEAST, LEAST)
    assert len(first_spectrum(small, 2).values) == LEAST - 1
    assert len(first_spectrum(many, LEAST // 2 + 1).values) == LEAST == len(first_spectrum(many, None).values)


def test_a_large_lokr_is_cut_as_by_the_whole_decomposition(tmp_path: Path) -> None:
    sides = {f"{NAME}.lokr_w1": random(1, 2, 2), f"{NAME}.lokr_w2": random(2, N, M)}
    (one,) = read_adapter(written(tmp_path / "large.safetensors", sides)).modules
    whole = dense_spectrum(delta(one, weight=-0.5))
    keeps = [Keep(rank=9), Keep(rank=40, energy=0.08), Keep(rank=40, sv_ratio=1.1), Keep(rank=40, energy=0.9), Keep(rank=N)]
    ranks = [keep.of(whole.values) for keep in keeps]
    assert ranks[0] == 9 and ranks[1] < 40 > ranks[2] and ranks[3:] == [40, N]
    for keep, rank in zip(keeps, ranks, strict=True):
        factors, energy = combined([(one, -0.5)], keep)
        assert factors.rank == rank and energy == pytest.approx(whole.energy(rank), rel=1e-6)  # the delta is in fp32
        error = float((factors.product() - whole.cut(rank).product()).norm()) / float(whole.values[:rank].norm())
        assert error < 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_large_side_without_numbers_is_refused(bad: float) -> None:
    matrix = random(1, N, M)
    matrix[3, 4] = bad
    with pytest.raises(Refused, match="NaN, infinite"):
        first_spectrum(matrix, 9)
