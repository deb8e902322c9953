"""A recipe in a file's header is a stranger's text: what of it could hang is refused before it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.errors import Faults, LoomError, Refused
from registry.merging.adapter_recipe import adapter_recipe
from registry.merging.job import RECIPE_KEY
from registry.merging.recipe import recipe_of
from registry.merging.reproduce import recipe_of_record, reproduce
from registry.record import FileEntry, Record
from registry.store import Store


def record(path: Path, match: str) -> Record:
    recipe = {"method": "weighted_sum", "rules": [{"match": match, "alpha": 0.5}]}
    save_file({"w": torch.zeros(1)}, path, metadata={RECIPE_KEY: json.dumps(recipe)})
    return Record(id="", name="stranger", kind="checkpoint", files=(FileEntry(path=str(path), bytes=path.stat().st_size),))


@pytest.mark.parametrize("match", ["(ab)+", "(?:attn[12])*", "(up){2,}"])
def test_a_repeated_group_is_refused(match: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="with a repeated group"):
        recipe_of_record(record(tmp_path / "a.safetensors", match))


@pytest.mark.parametrize("match", [r"attn\d+", "(up|down)_blocks", ".*attn2.*"])
def test_plain_rules_are_read(match: str, tmp_path: Path) -> None:
    assert recipe_of_record(record(tmp_path / "a.safetensors", match))["rules"][0]["match"] == match


ONE = {"ref": "a", "sha256": "0" * 64}
COMBINED = {"sources": [ONE], "weights": [1], "keep": None, "dtype": "F16"}
EXTRACTED = {"sources": [ONE, ONE], "keep": {"rank": 2}, "seed": 3, "dtype": "F16"}


@pytest.mark.parametrize(
    ("tool", "changed", "words"),
    [
        ("lora combine", {"sources": None}, "sources must be a list"),
        ("lora combine", {"sources": "abc"}, "sources must be a list"),
        ("lora combine", {"sources": [{**ONE, "name": 5}]}, "sources must be a list"),
        ("lora combine", {"sources": [{"ref": "a"}]}, "sources must be a list"),
        ("lora combine", {"weights": []}, "weights must be a list of numbers, one for each adapter: 1 number"),
        ("lora combine", {"weights": ["x"]}, "weights must be"),
        ("lora combine", {"weights": [10**400]}, "weights must be"),
        ("lora combine", {"weights": [float("nan")]}, "weights must be"),
        ("lora combine", {"keep": {"share": 1}}, "keep must be"),
        ("lora combine", {"keep": 5}, "keep must be"),
        ("lora combine", {"dtype": []}, "dtype must be"),
        ("lora extract", {"sources": [ONE]}, "extract takes two sources, 1 are given"),
        ("lora extract", {"keep": None}, "keep must be"),
        ("lora extract", {"keep": {"rank": 2.5}}, "keep must be"),
        ("lora extract", {"seed": "x"}, "seed must be"),
        ("lora extract", {"components": "unet"}, "components must be"),
        ("lora extract", {"biases": 1}, "biases must be"),
    ],
)
def test_an_adapters_recipe_that_cannot_be_followed_is_refused(tool: str, changed: dict[str, object], words: str, tmp_path: Path) -> None:
    plain = {"tool": tool, **(EXTRACTED if tool == "lora extract" else COMBINED), **changed}
    with pytest.raises(Faults, match=words):
        adapter_recipe(plain, tool, name="stranger")
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(1)}, file, metadata={RECIPE_KEY: json.dumps(plain)})
    with pytest.raises(Faults, match=words):
        reproduce(str(file), Store(tmp_path / "home"), tmp_path)


def test_an_adapters_recipe_is_read_whole() -> None:
    found = adapter_recipe(EXTRACTED, "lora extract", name="mine")
    assert found.keep is not None and (found.keep.rank, found.seed, found.dtype, found.weights) == (2, 3, "fp16", ())
    combined = adapter_recipe(COMBINED, "lora combine", name="mine")
    assert (combined.keep, combined.weights, combined.sources[0].name) == (None, (1.0,), "a")


@pytest.mark.parametrize("params", [{}, {"weights": []}, {"weights": ["x"]}, {"weights": 1}])
def test_a_fusion_without_its_weights_is_refused(params: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    plain = {"method": "fuse", "sources": ["a", "b"], "params": params}
    save_file({"w": torch.zeros(1)}, file, metadata={RECIPE_KEY: json.dumps(plain)})
    with pytest.raises(Faults, match="one for each adapter: 1 number"):
        reproduce(str(file), Store(tmp_path / "home"), tmp_path)


def test_a_hash_that_is_no_text_is_refused() -> None:
    """YAML reads one of digits alone as a number."""
    with pytest.raises(Faults, match=r"source 1 must be a reference, or .* in quotes"):
        recipe_of({"method": "weighted_sum", "sources": [{"ref": "a", "sha256": 12345678}, "b"]})


@pytest.mark.parametrize("field", ["tool", "method"])
def test_a_file_whose_recipe_names_no_tool_is_still_a_file(field: str, tmp_path: Path) -> None:
    file, store = tmp_path / "a.safetensors", Store(tmp_path / "home")
    save_file({"w": torch.zeros(1)}, file, metadata={RECIPE_KEY: json.dumps({field: ["x"], "sources": ["a"]})})
    assert store.find(str(file)).files[0].path == str(file)
    with pytest.raises(LoomError, match=r"cannot be done again|must be a text"):
        reproduce(str(file), store, tmp_path)
