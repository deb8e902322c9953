from __future__ import annotations

import pytest
import torch
from torch import Tensor

from registry.tensors.meta_results import Made, described

ADD, VIEW, ADD_, UNSAFE = (
    torch.ops.aten.add.Tensor,
    torch.ops.aten.view.default,
    torch.ops.aten.add_.Tensor,
    torch.ops.aten._unsafe_view.default,
)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_equal_shapes_are_described_alike_and_others_are_not() -> None:
    known = described(ADD, (meta(2, 3), meta(2, 3)), {})
    assert known is not None and known == described(ADD, (meta(2, 3), meta(2, 3)), {})
    others = [(meta(2, 3), meta(3)), (meta(3, 2).t(), meta(2, 3)), (meta(2, 3), meta(2, 3, dtype=torch.float16)), (meta(2, 3), 1)]
    assert len({described(ADD, args, {}) for args in (*others, (meta(2, 3), 1.0), (meta(2, 3), True))} | {known}) == 7


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (VIEW, (meta(2, 3), [6])),
        (ADD_, (meta(2), meta(2))),
        (ADD, (torch.zeros(2), torch.zeros(2))),  # has numbers
        (ADD, (meta(2), torch.tensor(1.0))),
    ],
)
def test_views_changes_and_tensors_with_numbers_are_not_described(func: object, args: tuple[object, ...]) -> None:
    assert described(func, args, {}) is None


def test_a_result_is_made_again_with_its_strides_and_dtype() -> None:
    given = meta(4, 3, 8, 8).to(memory_format=torch.channels_last)
    made = torch.ops.aten.convolution.default(given, meta(5, 3, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    kept = Made.of((made, None, [made.half()]), (given,), {})
    assert kept is not None
    again, none, (half,) = kept.again()
    assert (again.shape, again.stride(), again.dtype, none) == (made.shape, made.stride(), made.dtype, None)
    assert half.dtype == torch.float16 and again.untyped_storage().nbytes() == made.untyped_storage().nbytes()
    assert again.untyped_storage()._cdata != kept.again()[0].untyped_storage()._cdata


def test_a_result_that_shares_memory_is_not_kept() -> None:
    given = meta(2, 3)
    assert Made.of(UNSAFE(given, [6]), (given,), {}) is None
    assert Made.of((given.clone(), given.clone()), (), {}) is not None
    twice = meta(2)
    assert Made.of((twice, twice), (), {}) is None
    assert Made.of(meta(4)[:2], (), {}) is None  # has more memory than its shape
    assert Made.of((given.clone(), 3), (), {}) is None
