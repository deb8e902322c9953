"""An image with everything that can be left out of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.infer.conftest import Shelf
from tests.infer.images import square
from tests.tiny import tiny_control


@pytest.fixture
def given(shelf: Shelf, tmp_path: Path) -> dict[str, Any]:
    """The settings of an image that is drawn with everything that can be left out."""
    import torch
    from safetensors.torch import save_file

    shelf.store.add(tiny_control("sd1"), name="lines")
    width = json.loads((shelf.base / "text_encoder" / "config.json").read_text())["hidden_size"]
    save_file({"emb_params": torch.linspace(-1, 1, 2 * width).reshape(2, width)}, tmp_path / "soft.safetensors")
    shelf.store.add(tmp_path / "soft.safetensors", name="softness")
    square((200, 40, 90), (32, 32)).save(tmp_path / "start.png")
    hint = square((0, 0, 0), (32, 32))
    hint.paste((255, 255, 255), (8, 8, 24, 24))
    hint.save(tmp_path / "hint.png")
    return {
        "prompt": "a soft cat",
        "negative": "a dog",
        "init": str(tmp_path / "start.png"),
        "strength": 0.5,
        "controls": [{"net": "lines", "image": str(tmp_path / "hint.png"), "scale": 0.8}],
        "embeddings": [{"embedding": "softness", "token": "soft"}],
    }
