"""A Store in an empty home: what is exported does not ask which database it was registered in."""

from pathlib import Path

import pytest

from registry.store import Store


@pytest.fixture
def store(tmp_path: Path, pocket: Path) -> Store:
    """The Store of one test."""
    return Store(tmp_path / "home")
