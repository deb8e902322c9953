"""Whole runs with `precision=bf16`, what auto is on a GPU: each ends with a file that is proven on a fresh base."""

from collections.abc import Callable
from typing import Any

import pytest

from registry.store import Store
from train import run
from train.config import LoraConfig, Precision, TrainConfig

Settings = Callable[..., TrainConfig]
WAYS: dict[str, dict[str, Any]] = {
    "convolutions": {"lora": LoraConfig(rank=2, targets="convolutions")},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_saved_file_is_proven(way: str, settings: Settings, store: Store) -> None:
    lines: list[str] = []
    run.run(settings(precision=Precision.bf16, steps=2, **WAYS[way]), store, out=lines.append)
    assert any("verified on a fresh base" in line for line in lines)
    assert store.find("discs", kind="adapter").path is not None
