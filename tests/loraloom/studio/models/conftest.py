"""A Studio with a registry: tiny adapters of several ranks outside its folders, in lines of descent, with hostile names and images."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from registry.record import Record
from registry.store import Store
from tests.loraloom.studio.opened import Served
from tests.registry.made import lora, sd1_attention

HOSTILE = "</script><img src=x onerror=alert(1)> 'a' \"b\" & 猫"
MODULES = sd1_attention(128, channels=48, blocks=(0,))


@dataclass(frozen=True)
class Shelf:
    """What is served, and where its models lie."""

    served: Served
    models: Path

    @property
    def store(self) -> Store:
        return Store(self.served.studio.home)

    def one(self, name: str) -> Record:
        return self.store.find(name)


@pytest.fixture
def shelf(served: Served, tmp_path: Path) -> Shelf:
    """Twelve adapters, of which ink-0 is the parent of ink-1, and that of ink-2; ink-3 has a preview beside it; one has a hostile name."""
    models = tmp_path / "models"
    for number in range(11):
        lora(models / f"ink-{number}.safetensors", MODULES, rank=(2, 4, 8)[number % 3], seed=str(number))
    lora(models / f"{HOSTILE.replace('/', '_')}.safetensors", MODULES, seed="hostile")
    Image.new("RGB", (40, 30), "teal").save(models / "ink-3.preview.png")
    Image.new("RGB", (40, 30), "gold").save(models / "private.png")
    store = Store(served.studio.home)
    store.scan(models, hash=True)
    for child, parent in (("ink-1", "ink-0"), ("ink-2", "ink-1")):
        digest = store.find(parent).hashes.sha256
        store.add(str(models / f"{child}.safetensors"), parents=[{"role": "source", "ref": parent, "sha256": digest}])
    store.close()
    return Shelf(served, models)


def grid(folder: Path, sha256: str) -> Path:
    """A finished grid's cells.jsonl with one image that was drawn with a model, and a line that is none."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (16, 16), "red").save(folder / "images" / "a.png")
    adapters = [{"reference": "x", "weight": 1.0, "sha256": sha256}]
    cell = {"key": "k", "render": {"base": "pocket", "prompt": "a cat", "adapters": adapters}, "image": "images/a.png", "axes": {"seed": 1}}
    outside = {**cell, "image": "../../../../secret.png"}
    (folder / "cells.jsonl").write_text(f"{json.dumps(cell)}\nnot a cell\n{json.dumps(outside)}\n")
    return folder
