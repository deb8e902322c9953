"""The code that a CPU keeps: once for each shape, and of the size that this process then takes."""

import pytest
import torch

from registry.budget.code import CONVOLUTION, PRODUCT, processor
from registry.budget.peak import trace


def product() -> int:
    """Bytes of a product in bfloat16: none where oneDNN does not compute it on this CPU."""
    return PRODUCT if processor()[0] else 0


def code(*rows: int, dtype: torch.dtype = torch.bfloat16, on_cpu: bool = True) -> int:
    """Of products of so many rows each."""
    weight = torch.empty(32, 32, device="meta", dtype=dtype)

    def work() -> None:
        for count in rows:
            torch.mm(torch.empty(count, 32, device="meta", dtype=dtype), weight)

    return trace(work, [], on_cpu=on_cpu).code


def test_each_shape_of_a_product_in_bfloat16_has_its_own() -> None:
    assert code(8, 16, 8) == 2 * product()
    assert code(8, 16, 8, on_cpu=False) == code(8, 16, dtype=torch.float32) == code(8, dtype=torch.float16) == 0


def test_a_convolution_has_less_and_in_fp32_too() -> None:
    image, weight = torch.empty(1, 16, 8, 8, device="meta"), torch.empty(16, 16, 3, 3, device="meta")
    assert trace(lambda: torch.conv2d(image, weight), [], on_cpu=True).code == CONVOLUTION


def test_a_torch_without_onednn_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    assert code(8) == 0 and processor()[:2] == [False, False]


def test_it_is_what_products_leave_in_memory() -> None:
    from registry.budget.free import resident_bytes
    from registry.budget.freed import give_back

    def products(begin: int) -> None:
        for count in range(begin, begin + 40):
            torch.mm(torch.ones(count, 48, dtype=torch.bfloat16), torch.ones(48, 48, dtype=torch.bfloat16))
        give_back()

    products(1)
    before = resident_bytes()
    products(41)
    each, noise = (resident_bytes() - before) / 40, 2**14
    assert product() / 4 - noise <= each <= 4 * product() + noise  # another CPU's code has another size; here it is 0.99 to 1.09 of this
