"""A recipe in a file's header is a stranger's text: what of it could hang is refused before it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.errors import Refused
from registry.merging.job import RECIPE_KEY
from registry.merging.reproduce import recipe_of_record
from registry.record import FileEntry, Record


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
