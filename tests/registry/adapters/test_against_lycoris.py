"""Every algorithm of LyCORIS on layers of three shapes: our change of the weight is the one that LyCORIS trains.

The file beside this one is made by bench/merge/lycoris_cases.py with LyCORIS's own modules.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from registry.adapters.delta import delta
from registry.adapters.reader import read_adapter
from registry.adapters.shape_check import misshape
from tests.registry.merging.models import read, written

if TYPE_CHECKING:
    from torch import Tensor


@cache
def made() -> dict[str, dict[str, Tensor]]:
    """'case/layer' -> base, merged, and the module's tensors by their own names."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read(Path(__file__).parent / "lycoris.safetensors").items():
        case, layer, rest = key.split("/", 2)
        found.setdefault(f"{case}/{layer}", {})[rest] = tensor
    return found


def test_all_cases_are_there() -> None:
    cases = {name.partition("/")[0] for name in made()}
    assert len(made()) == 99 and {"loha rows", "lokr-both tucker", "oft-constrained", "boft-rescaled", "ia3-inputs", "glora"} <= cases


@pytest.mark.parametrize("case", sorted({name.partition("/")[0] for name in made()}))
def test_the_change_is_what_lycoris_trains(case: str, tmp_path: Path) -> None:
    for name, tensors in made().items():
        if name.partition("/")[0] != case:
            continue
        own = {key.removeprefix("module/"): value for key, value in tensors.items() if key.startswith("module/")}
        (module,) = read_adapter(written(tmp_path / f"{name.replace('/', '-')}.safetensors", own)).modules
        base, merged = tensors["base"], tensors["merged"]
        assert misshape(module, tuple(base.shape)) is None and not merged.equal(base)
        assert torch.allclose(base + delta(module, base), merged, rtol=1e-5, atol=2e-6), name  # fp32 products of factors near 1
        assert delta(module, base, weight=0.0).abs().max() < 1e-6, name  # and strength 0 leaves the base
