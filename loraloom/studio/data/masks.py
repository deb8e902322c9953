"""The mask of an image as a page shows it: as training reads it, from whatever kind of file."""

from __future__ import annotations

import io
from pathlib import Path

from registry.errors import Refused
from registry.formats.image_file import Unreadable
from train.masks.decode import read_mask


def mask_png(path: Path, *, of: str) -> bytes:
    """A mask file as a grey PNG. Raises Refused, with the names of the file and of its image, for one that cannot be read."""
    whole = io.BytesIO()
    try:
        read_mask(path.read_bytes()).save(whole, "PNG", compress_level=1)
    except (Unreadable, OSError) as error:
        raise Refused(f"{path.name}, the mask of {of}, cannot be read: {error}. Paint another one, or remove it.") from error
    return whole.getvalue()
