"""What a merge does with each key, decided from headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from registry.merging.keys import Keys, plan_keys
from registry.merging.methods import METHODS
from registry.merging.recipe import recipe_of
from registry.tensors.layout import read_layout
from tests.registry.merging.models import written

A = "model.diffusion_model.input_blocks.1.0.weight"
B = "model.diffusion_model.out.2.weight"
V = "first_stage_model.decoder.conv_in.weight"
IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def values(**more: Tensor) -> dict[str, Tensor]:
    """A model of three matrices and a row of integers."""
    return {A: torch.ones(2, 2), B: torch.ones(2, 2), V: torch.ones(2, 2), IDS: torch.arange(3)} | more


def planned(folder: Path, *models: Mapping[str, Tensor], method: str = "weighted_sum", **settings: Any) -> Keys:
    paths = [written(folder / f"{number}.safetensors", tensors) for number, tensors in enumerate(models)]
    recipe = recipe_of({"method": method, "sources": [str(path) for path in paths], **settings})
    return plan_keys(recipe, METHODS[method], [read_layout(path) for path in paths])


def test_floating_tensors_are_merged_and_integers_copied(tmp_path: Path) -> None:
    found = planned(tmp_path, values(), values())
    assert found.faults == [] and [found.keys[key].copied for key in (A, B, V, IDS)] == [None, None, None, "integer"]
    assert found.counts() == {"merged": 3, "copied": 1, "skipped": 0}


def test_a_marker_without_elements_is_copied(tmp_path: Path) -> None:
    found = planned(tmp_path, values(v_pred=torch.zeros(0)), values(v_pred=torch.zeros(0)))
    assert found.keys["v_pred"].copied == "empty"


def test_other_components_are_copied(tmp_path: Path) -> None:
    found = planned(tmp_path, values(), values(), components=["denoiser"])
    assert (found.keys[A].copied, found.keys[V].copied) == (None, "component")


def test_an_unknown_component_is_a_fault_that_lists_the_known(tmp_path: Path) -> None:
    (fault,) = planned(tmp_path, values(), values(), components=["denoiser", "vea"]).faults
    assert "no vea" in fault and "vae" in fault


def test_a_missing_and_an_extra_key_are_faults_unless_the_first_source_decides(tmp_path: Path) -> None:
    less = {key: value for key, value in values(other=torch.ones(1)).items() if key != B}
    found = planned(tmp_path / "refuse", values(), less)
    assert len(found.faults) == 2 and "lacks 1" in found.faults[0] and "has 1 keys" in found.faults[1]
    allowed = planned(tmp_path / "first", values(), less, missing="first")
    assert allowed.faults == [] and allowed.keys[B].copied == "only the first source has it" and allowed.extra == ["other"]


def test_different_shapes_are_refused_copied_or_merged_where_they_overlap(tmp_path: Path) -> None:
    wide = values() | {A: torch.ones(2, 5)}
    assert "has different shapes: [2, 2] and [2, 5]" in planned(tmp_path / "refuse", values(), wide).faults[0]
    assert planned(tmp_path / "first", values(), wide, mismatch="first").keys[A].copied == "shape"
    assert planned(tmp_path / "overlap", values(), wide, mismatch="overlap").keys[A].shared == (2, 2)
    flat = values() | {A: torch.ones(4)}
    assert "different numbers of axes" in planned(tmp_path / "axes", values(), flat, mismatch="overlap").faults[0]


def test_an_integer_tensor_in_a_later_source_is_a_fault(tmp_path: Path) -> None:
    (fault,) = planned(tmp_path, values(), values() | {A: torch.ones(2, 2, dtype=torch.int64)}).faults
    assert "F32 in the first source and I64 in 1.safetensors" in fault


def test_the_first_rule_that_matches_decides_a_key(tmp_path: Path) -> None:
    rules = [{"match": "out", "alpha": 0.25}, {"match": "diffusion_model", "alpha": 0.75}]
    found = planned(tmp_path, values(), values(), rules=rules, params={"alpha": 0.5})
    assert [found.keys[key].options["alpha"] for key in (B, A, V)] == [0.25, 0.75, 0.5] and found.hits == [1, 1]


def test_a_rule_takes_a_key_from_a_later_source_or_drops_it(tmp_path: Path) -> None:
    extra = values(only=torch.ones(1))
    found = planned(tmp_path, values(), extra, rules=[{"match": "^only$", "take": 2}, {"match": "first_stage", "drop": True}])
    assert found.faults == [] and found.keys["only"].copied == "rule" and found.keys["only"].sources[0].file.name == "1.safetensors"
    assert found.dropped == [V] and V not in found.keys


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"match": "nowhere", "drop": True}], "rule 1 (nowhere) matches no key"),
        ([{"match": "diffusion", "alpha": 0.1}, {"match": "out", "alpha": 0.2}], "rule 2 (out) is shadowed"),
        ([{"match": "out", "take": 3}], "rule 1 takes source 3; there are 2"),
        ([{"match": "out", "alhpa": 1}], "alpha"),
    ],
)
def test_rules_that_cannot_act_are_faults(tmp_path: Path, rules: list[dict[str, Any]], expected: str) -> None:
    assert any(expected in fault for fault in planned(tmp_path, values(), values(), rules=rules).faults)


def test_an_optional_rule_may_match_nothing(tmp_path: Path) -> None:
    assert planned(tmp_path, values(), values(), rules=[{"match": "nowhere", "drop": True, "optional": True}]).faults == []


def test_the_result_has_the_dtype_of_the_recipe_or_of_the_first_source(tmp_path: Path) -> None:
    half = values() | {A: torch.ones(2, 2, dtype=torch.float16)}
    assert [planned(tmp_path / "own", half, values()).keys[key].out.dtype for key in (A, B, IDS)] == ["F16", "F32", "I64"]
    found = planned(tmp_path / "bf16", half, values(), dtype="bf16")
    assert [found.keys[key].out.dtype for key in (A, B, IDS)] == ["BF16", "BF16", "I64"]


def test_a_merge_that_would_merge_nothing_is_a_fault(tmp_path: Path) -> None:
    (fault,) = planned(tmp_path, {IDS: torch.arange(3)}, {IDS: torch.arange(3)}).faults
    assert "nothing would be merged" in fault
