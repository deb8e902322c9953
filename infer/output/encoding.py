"""The formats of a run folder's images, and how a lossy one was encoded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class ImageFormat(Enum):
    """The format of the images of a run folder."""

    png = "png"
    jpeg = "jpeg"
    webp = "webp"


SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
QUALITY = 90  # of JPEG and WebP


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a lossy image was encoded: `pixels_sha256` is of what a reader gets, `encoder` the version of Pillow."""

    format: str
    quality: int
    encoder: str
    pixels_sha256: str

    @classmethod
    def from_json(cls, data: Any) -> Encoding | None:
        """The Encoding back from our text; None of a PNG's. Raises ValueError, TypeError, KeyError."""
        if data is None:
            return None
        found = cls(**{name: data[name] for name in ("format", "quality", "encoder", "pixels_sha256")})
        if found.format not in ("jpeg", "webp") or type(found.quality) is not int or not 1 <= found.quality <= 100:
            raise ValueError("encoding of another kind")
        return found

    def __str__(self) -> str:
        return f"{'JPEG' if self.format == 'jpeg' else 'WebP'} of quality {self.quality}"


def kind_of(data: bytes) -> str:
    """The format of an image's bytes, as a media type has it."""
    return "jpeg" if data.startswith(b"\xff\xd8") else "webp" if data[8:12] == b"WEBP" else "png"


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of an image, from its header."""
    with file.open("rb") as opened:
        start = opened.read(24)
    if kind_of(start) == "png":
        return int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    from PIL import Image

    with Image.open(file) as image:
        return image.size
