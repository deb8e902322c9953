"""A tiny base and three adapters, built once, and a home of its own for each test."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.store import Store
from tests.tiny import tiny_adapter, tiny_sd1


@dataclass(frozen=True)
class Shelf:
    """A home with a Store in it: `tiny` is a base; `ink`, `hat` and `words` (text encoder too) are adapters of it."""

    store: Store
    home: Path
    base: Path
    work: Path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files: base/, ink, hat and words.safetensors."""
    folder = tmp_path_factory.mktemp("models")
    tiny_sd1(folder / "base")
    tiny_adapter(folder / "base", folder / "ink.safetensors", seed=1)
    tiny_adapter(folder / "base", folder / "hat.safetensors", seed=2)
    tiny_adapter(folder / "base", folder / "words.safetensors", seed=3, text_encoder=True)
    return folder


@pytest.fixture
def shelf(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    home = tmp_path / "home"
    monkeypatch.setenv("LORALOOM_HOME", str(home))
    store = Store(home)
    store.add(models / "base", name="tiny")
    for name in ("ink", "hat", "words"):
        store.add(models / f"{name}.safetensors", name=name)
    yield Shelf(store, home, models / "base", tmp_path / "work")
    store.close()
