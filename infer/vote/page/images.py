"""A cell's image as a page may show it: the pixels alone, without the settings, names and hashes that the file carries."""

from __future__ import annotations

from pathlib import Path

from infer.output.png import LARGEST, bare_png
from registry.errors import BadFile
from registry.formats.safetensors_header import open_regular


def bare_image(path: Path) -> bytes:
    """The PNG without anything but its pixels. Raises BadFile for a link, and for what is no PNG."""
    if path.is_symlink():
        raise BadFile(path, "no-image", "is a link; an image of the grid was expected.")
    with open_regular(path) as file:
        data = file.read(LARGEST)
    return bare_png(data, path)
