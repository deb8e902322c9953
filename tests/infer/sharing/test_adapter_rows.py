"""The adapters of each row of a forward, on one layer, against W x + w alpha / r B A x written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infer.sharing.adapter_rows import RowAdapters
from registry.errors import JobFailed


class Toy(torch.nn.Module):
    """A linear layer, a convolution and one in groups, each on its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(4, 6)
        self.wide = torch.nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.grouped = torch.nn.Conv2d(4, 6, 3, padding=1, groups=2)


@pytest.fixture
def toy() -> Any:
    """The layers with the adapters `a` (rank 2, alpha 4) and `b` (rank 4, alpha 2)."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(3)
    model = Toy()
    for name, rank, alpha in (("a", 2, 4), ("b", 4, 2)):
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["line", "wide", "grouped"])
        inject_adapter_in_model(config, model, adapter_name=name)
    for key, weight in model.named_parameters():
        if ".lora_" in key:
            torch.nn.init.normal_(weight)
    return model.requires_grad_(False)


ROWS: tuple[dict[str, float], ...] = ({"a": 1.0}, {"b": -0.5}, {}, {"a": 0.25, "b": 2.0})


@pytest.mark.parametrize(("layer", "tokens"), [("line", 5), ("line", 1), ("wide", 0), ("grouped", 0)])
@pytest.mark.parametrize("folded", [1, 3])
def test_each_row_has_its_own(toy: Any, layer: str, tokens: int, folded: int) -> None:
    """With few tokens a linear layer has its adapters beside the weight, with more of them in it."""
    module = getattr(toy, layer)
    shape = (len(ROWS) * folded, tokens, 4) if layer == "line" else (len(ROWS) * folded, 4, 8, 8)
    inputs = torch.randn(shape)
    expected = module.base_layer(inputs)
    for row, weights in enumerate(ROWS):
        own = slice(row * folded, (row + 1) * folded)
        for name, weight in weights.items():
            scale = weight * {"a": 4 / 2, "b": 2 / 4}[name]
            expected[own] += scale * module.lora_B[name](module.lora_A[name](inputs[own]))
    rows = RowAdapters(toy)
    rows.install()
    rows.use(ROWS)
    assert torch.allclose(module(inputs), expected, atol=1e-5)
    rows.use([{}] * len(ROWS))
    assert module(inputs).equal(module.base_layer(inputs))
    rows.remove()
    assert module(inputs).equal(module.base_layer(inputs)) and "forward" not in vars(module)


def test_rows_of_equal_weights_have_the_adapters_in_the_weight_where_that_costs_less(toy: Any) -> None:
    rows, calls = RowAdapters(toy), []
    toy.line.base_layer.register_forward_hook(lambda *_: calls.append(1))  # the base's own product, when adapters are beside it
    rows.install()
    weights = ({"a": 1.0}, {"a": 1.0}, {"b": 0.5}, {"b": 0.5})
    rows.use(weights)
    inputs = torch.randn(4, 6, 4)
    in_weight = toy.line(inputs)
    assert not calls
    beside = torch.cat([toy.line(inputs[:, token : token + 1]) for token in range(6)], dim=1)
    assert len(calls) == 6 and torch.allclose(in_weight, beside, atol=1e-5)
    rows.use([{"a": 1 / number} for number in range(1, 13)])  # as many runs as rows
    assert toy.line(torch.randn(12, 6, 4)).shape == (12, 6, 6) and len(calls) == 7


def test_rows_that_belong_to_no_image_are_refused(toy: Any) -> None:
    rows = RowAdapters(toy)
    rows.install()
    rows.use(ROWS)
    with pytest.raises(JobFailed, match="5 rows where the forward has 4 images"):
        toy.line(torch.randn(5, 4))


def test_numbers_that_are_not_finite_stay_out_of_other_rows(toy: Any) -> None:
    rows = RowAdapters(toy.half())
    rows.install()
    toy.line.lora_A["a"].weight.fill_(60000.0)  # 60000 x 2 overflows float16
    rows.use([{"a": 1.0}, {"b": 1.0}])
    one, other = toy.line(torch.full((2, 4), 2.0, dtype=torch.float16))
    assert not one.isfinite().all() and other.isfinite().all()
    toy.line.lora_B["a"].weight[0, 0] = float("nan")
    rows.install()
    rows.use([{"a": 1.0}, {"b": 1.0}])
    with pytest.raises(JobFailed, match="not finite"):
        toy.line(torch.zeros(2, 4, dtype=torch.float16))
