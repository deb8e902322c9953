"""What differs between two checkpoints and is no layer of both: counted, noted or refused, whatever its shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from registry.adapters.extract import ExtractPlan, plan_extract, run_extract
from registry.adapters.factors import Keep
from registry.errors import Faults
from registry.store import Store
from tests.registry.adapters.made_adapters import QUERY, checkpoint, random
from tests.registry.merging.models import read, written

SCALE = "cond_stage_model.model.logit_scale"
KEY = QUERY.replace("to_q", "to_k")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def planned(
    store: Store,
    folder: Path,
    *,
    base: dict[str, Tensor] | None = None,
    tuned: dict[str, Tensor] | None = None,
    components: tuple[str, ...] | None = None,
) -> ExtractPlan:
    """Of a checkpoint whose query is changed by a product of rank 1 and norm 2; both have further tensors."""
    values = read(checkpoint(folder / "made.safetensors"))
    change = torch.zeros(8, 6)
    change[0, 0] = 2.0
    changed = {**values, f"{QUERY}.weight": values[f"{QUERY}.weight"] + change}
    first, second = (
        str(written(folder / f"{name}.safetensors", {**own, **(more or {})}))
        for name, own, more in (("tuned", changed, tuned), ("base", values, base))
    )
    return plan_extract(first, second, store, folder / "out.safetensors", keep=Keep(rank=1), dtype="fp32", components=components)


def test_a_number_without_axes_is_counted(store: Store, tmp_path: Path) -> None:
    """4 of the layer in squares, 9 of the scale."""
    found = run_extract(planned(store, tmp_path, base={SCALE: torch.tensor(1.0)}, tuned={SCALE: torch.tensor(4.0)}), store).result
    assert found["left_out_by"] == pytest.approx({"other tensors": 9 / 13}) and found["retained_all"] == pytest.approx(4 / 13)


def test_tensors_without_numbers_differ_in_nothing(store: Store, tmp_path: Path) -> None:
    empty = {f"{KEY}.weight": torch.zeros(0, 6)}
    found = run_extract(planned(store, tmp_path, base=empty, tuned=empty), store).result
    assert found["modules"] == 1 and found["left_out"] == 0.0


def test_what_the_tuned_one_alone_has_is_named(store: Store, tmp_path: Path) -> None:
    plan = planned(store, tmp_path, tuned={f"{KEY}.weight": random(1, 8, 6), f"{QUERY}.bias": random(2, 8), SCALE: torch.tensor(1.0)})
    (note,) = [note for note in plan.notes if "in one of the two only" in note]
    assert note.startswith("3 tensors") and "attn1.to_k" in note and f"{QUERY}.bias" in note and SCALE in note
    only = planned(store, tmp_path, tuned={SCALE: torch.tensor(1.0)}, components=("denoiser",))
    assert not [note for note in only.notes if "in one of the two only" in note]


def test_a_component_that_the_base_has_not_is_a_fault(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Faults, match="the base has no component unet; it has "):
        planned(store, tmp_path, components=("denoiser", "unet"))
