"""A set below a served Studio."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.loraloom.studio.opened import Served
from tests.train.data.editing.conftest import image


@pytest.fixture
def photos(served: Served) -> Path:
    """Four images, one of them held out and one without a caption."""
    folder = served.studio.folder / "photos"
    for number, name in enumerate(["a", "b", "-c", "heldout/d"]):
        image(folder / f"{name}.png", number, (96, 64))
        (folder / f"{name}.txt").write_text(f"{name[-1]}, hat, red\n")
    (folder / "-c.txt").write_text("c, red, hat, hat\n")
    (folder / "b.txt").unlink()
    return folder


def png(size: tuple[int, int], left: int) -> bytes:
    """A mask that keeps what lies left of a column."""
    made = Image.new("L", size, 0)
    made.paste(255, (0, 0, left, size[1]))
    whole = io.BytesIO()
    made.save(whole, "PNG")
    return whole.getvalue()
