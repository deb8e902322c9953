"""A Store of its own for each test, and a small embedded base."""

from pathlib import Path

import pytest

from registry.store import Store
from tests.registry.made import diffusers_folder


@pytest.fixture
def pocket(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded base: a diffusers folder with few tensors."""
    folder = diffusers_folder(tmp_path_factory.mktemp("pocket") / "pocket")
    monkeypatch.setenv("LORALOOM_POCKET", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path, pocket: Path) -> Store:
    """A Store in an empty home."""
    return Store(tmp_path / "home")
