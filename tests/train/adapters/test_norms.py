"""The norm of each kind's change, against that of the change itself."""

from pathlib import Path

import pytest
import torch

from tests.train.adapters.test_kinds import trained
from tests.train.adapters.test_runs import KINDS
from train.adapters.attach import deltas_of
from train.adapters.layer import product_norm
from train.adapters.norms import change_norms


def test_the_norm_of_a_product_is_that_of_its_factors_products() -> None:
    up, down = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])
    assert product_norm(up, down) == pytest.approx(125**0.5), "of [[3, 4], [6, 8]]"
    assert product_norm(torch.zeros(2, 1), down) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_each_kinds_norm_is_that_of_its_change(kind: str, base: Path) -> None:
    unet = trained(KINDS[kind], base)
    wanted = {name: float(found.change.double().norm()) for name, found in deltas_of(unet)}
    found = {name: norm for name, _, norm in change_norms(unet)}
    assert found.keys() == wanted.keys() and found == pytest.approx(wanted, rel=2e-5)
    weights = {name: weight for name, weight, _ in change_norms(unet)}
    assert all(weight.requires_grad is False for weight in weights.values()), "the base's own"
