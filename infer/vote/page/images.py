"""A cell's image as a page may show it: the pixels alone, without the settings, names and hashes that the file carries."""

from __future__ import annotations

import io
from pathlib import Path

from infer.draw.input_images import fitted
from infer.output.png import LARGEST, bare_png
from registry.errors import BadFile
from registry.formats.image_file import Unreadable, decode
from registry.formats.safetensors_header import open_regular


def bare_image(path: Path, box: tuple[int, int] | None = None) -> bytes:
    """The PNG without anything but its pixels. Raises BadFile for a link, and for what is no PNG.

    With a `box` it is encoded anew at that size, as the drawn images are: its middle alone where it has another shape.
    """
    if path.is_symlink():
        raise BadFile(path, "no-image", "is a link; an image of the grid was expected.")
    with open_regular(path) as file:
        data = file.read(LARGEST)
    bare = bare_png(data, path)
    if box is None:
        return bare
    try:
        image = fitted(decode(bare)[0], box, "crop")
    except Unreadable as error:
        raise BadFile(path, "not-a-png", f"is not a PNG that can be read ({error}).") from error
    whole = io.BytesIO()
    image.save(whole, "PNG", compress_level=6)
    return whole.getvalue()
