"""Sets that edits are tried on."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image


def image(path: Path, number: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    """A small image that no other number gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.new("RGB", size, (40 * number % 256, 90, 200 - number))
    made.putpixel((number % size[0], 3), (255, 255, 255))
    made.save(path)
    return path


def files_of(folder: Path) -> Mapping[str, bytes]:
    """What every file of a set holds, but its journal's."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in found}
    return {name: path.read_bytes() for path, name in names.items() if not name.startswith(".loraloom-edits/")}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images with captions, one of them held out."""
    folder = tmp_path / "photos"
    for number, name in enumerate(["a", "b", "c", "heldout/d"]):
        image(folder / f"{name}.png", number)
        (folder / f"{name}.txt").write_text(f"{name[-1]}, hat, red\n")
    return folder
