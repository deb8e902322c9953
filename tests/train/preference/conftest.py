"""A grid with votes, and settings of a run that learns from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.preference.voted import voted_grid
from train.config import DataConfig, HeldoutConfig, ObjectiveConfig, ObjectiveParams, TrainConfig


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight votes on four prompts."""
    return voted_grid(tmp_path_factory.mktemp("voted") / "grid")


@pytest.fixture
def votes_run(settings: Callable[..., TrainConfig], grid: Path) -> Callable[..., TrainConfig]:
    """Makes settings of a run on the grid; `params` are options of the objective."""

    def make(params: dict[str, Any] | None = None, **given: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "data": DataConfig(preferences=str(grid)),
            "objective": ObjectiveConfig(name="dpo", params=ObjectiveParams(**(params or {}))),
            "heldout": HeldoutConfig(every=100, share=0.3),
        }
        return settings(**(values | given))

    return make
