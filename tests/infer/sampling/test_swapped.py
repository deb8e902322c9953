"""Images drawn with swapped blocks are those drawn without, under the same keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.grid.config import GridConfig
from infer.grid.job import cells_of, plan, run
from registry.errors import Faults
from registry.store import Store
from tests.infer.draw.kinds import write_kind
from tests.infer.draw.test_kinds import shapes
from tests.tiny import shared_folder, tiny_adapter, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), [("sd1", "lora"), ("sd1", "lokr"), ("flux1", "lora")])
def test_the_image_and_its_key_are_those_without(family: str, kind: str, store: Store, tmp_path: Path) -> None:
    import shutil

    folder, path = shared_folder(family), tmp_path / "one.safetensors"
    if kind == "lora":
        tiny_adapter(folder, path, family=family)
    else:
        write_kind(kind, shapes(tiny_parts(family)[1]), path)
    store.add(path, name="one")
    settings: dict[str, Any] = {
        "base": str(folder),
        "prompt": "a red cat",
        "steps": 3,
        "adapters": "one:0.8",
        "out": str(tmp_path / "runs"),
    }
    pixels, keys = [], set()
    for count in (0, 2):
        config = GridConfig(**settings, swap_blocks=count, name=f"swap-{count}")
        keys |= {cell.render.key() for cell in plan(config, store).cells}
        outcome = run(config, store)
        assert outcome.result["rendered"] == 1
        with Image.open(outcome.folder / "images" / "image.png") as image:
            pixels.append(image.convert("RGB").tobytes())
        shutil.rmtree(store.home / "cells")
    assert len(set(pixels)) == 1 and len(keys) == 1


def test_more_blocks_than_there_are_are_refused(store: Store) -> None:
    for count, words in ((999, "swap_blocks=999, but .* blocks that can be swapped"), (-1, "swap_blocks is -1. Expected 0 or more")):
        with pytest.raises(Faults, match=words):
            plan(GridConfig(base=str(shared_folder("sd1")), prompt="a cat", steps=2, swap_blocks=count), store)
    assert cells_of(store) is not None
