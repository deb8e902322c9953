"""Fused layers: the products stay, the rank is as small as it can be, and what was joined comes apart as it was."""

from __future__ import annotations

import pytest
import torch

from registry.adapters.writer import Pair
from registry.converting.fusing import fuse, split

ROWS = (3, 2, 2)


def made(seed: int, out: int, *, rank: int = 2, alpha: float = 1.0, dtype: torch.dtype = torch.float32) -> Pair:
    draw = torch.Generator().manual_seed(seed)
    return Pair(torch.randn(rank, 4, generator=draw).to(dtype), torch.randn(out, rank, generator=draw).to(dtype), alpha)


def stacked(parts: list[Pair | None]) -> torch.Tensor:
    return torch.cat([part.product() if part is not None else torch.zeros(count, 4) for part, count in zip(parts, ROWS, strict=True)])


def same(one: Pair | None, other: Pair | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one.down, other.down) and torch.equal(one.up, other.up) and one.alpha == other.alpha


def test_separate_factors_are_joined_along_the_diagonal() -> None:
    one = Pair(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), 1.0)
    two = Pair(torch.tensor([[5.0, 6.0]]), torch.tensor([[7.0], [8.0]]), 1.0)
    fused = fuse([one, two], (1, 2))
    assert fused.down.tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert fused.up.tolist() == [[3.0, 0.0], [0.0, 7.0], [0.0, 8.0]]
    assert (fused.alpha, fused.scale) == (2.0, 1.0)


def test_a_shared_down_factor_keeps_the_rank() -> None:
    one = made(0, 3)
    two = Pair(one.down, made(1, 2).up, one.alpha)
    fused = fuse([one, two, None], ROWS)
    assert fused.rank == 2 and fused.alpha == one.alpha
    assert torch.equal(fused.up, torch.cat([one.up, two.up, torch.zeros(2, 2)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "parts",
    [
        [made(0, 3), made(1, 2), made(2, 2)],
        [made(0, 3), None, made(2, 2)],
        [None, made(1, 2, rank=3), made(2, 2, rank=1)],
        [made(0, 3, rank=1, alpha=0.5), made(1, 2, rank=4, alpha=2.0), None],
    ],
)
def test_what_was_joined_comes_apart_as_it_was(parts: list[Pair | None], dtype: torch.dtype) -> None:
    parts = [None if part is None else Pair(part.down.to(dtype), part.up.to(dtype), part.alpha) for part in parts]
    fused = fuse(parts, ROWS)
    assert torch.allclose(fused.product(), stacked(parts), rtol=1e-6, atol=1e-7)
    back = split(fused, ROWS)
    assert [part is None for part in back] == [part is None for part in parts]
    assert torch.allclose(stacked(back), stacked(parts), rtol=1e-6, atol=1e-7)
    scales = {part.scale for part in parts if part is not None}
    if len(scales) == 1:
        assert all(same(one, other) for one, other in zip(back, parts, strict=True))


def test_a_column_that_training_left_at_zero_stays_with_its_module() -> None:
    parts = [made(0, 3), made(1, 2), made(2, 2)]
    parts[0].up[:, 1] = 0
    parts[1].up.zero_()
    back = split(fuse(parts, ROWS), ROWS)
    assert same(back[0], parts[0]) and back[1] is None and same(back[2], parts[2])


def test_other_scales_are_taken_into_the_up_factor() -> None:
    half = made(1, 2, alpha=0.7, dtype=torch.float16)
    parts = [made(0, 3, dtype=torch.float16), half, None]
    fused = fuse(parts, ROWS)
    assert fused.up.dtype == torch.float32  # 0.7 times a half is no half
    assert torch.allclose(fused.product(), stacked(parts), rtol=1e-6, atol=1e-7)
    doubled = fuse([parts[0], made(1, 2, alpha=2.0, dtype=torch.float16), None], ROWS)
    assert doubled.up.dtype == torch.float16  # twice a half is one


def test_a_file_that_shares_its_down_factor_gives_it_to_every_module() -> None:
    pair = made(3, 7, rank=2, alpha=1.5)
    pair.up[5:] = 0
    q, k, v = split(pair, ROWS)
    assert q is not None and k is not None and v is None
    assert torch.equal(q.down, pair.down) and torch.equal(k.up, pair.up[3:5]) and q.alpha == 1.5


def test_magnitudes_of_rows_follow_their_rows() -> None:
    parts = [made(n, count) for n, count in enumerate(ROWS)]
    given = [Pair(part.down, part.up, part.alpha, torch.arange(float(len(part.up))) + n) for n, part in enumerate(parts)]
    fused = fuse(given, ROWS)
    assert fused.dora is not None and fused.dora.tolist() == [0.0, 1.0, 2.0, 1.0, 2.0, 2.0, 3.0]
    back = split(fused, ROWS)
    for one, other in zip(back, given, strict=True):
        assert one is not None and one.dora is not None and other.dora is not None
        assert torch.equal(one.dora, other.dora)
