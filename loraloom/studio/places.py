"""Which files the Studio may read and write, and thumbnails of images, made once."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import BadFile, NotFound, Refused
from registry.formats.atomic_file import atomic_file
from registry.home import expanded, pocket_dir

if TYPE_CHECKING:
    from registry.store import Store

SIDES = (96, 192, 384, 768)  # pixels of a thumbnail's longer side; what is asked for is rounded up to one of them
MEDIA = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".bmp": "image/bmp"}


class Places:
    """Files below the roots, and of what is registered. Links are followed first: what counts is where a file really is."""

    def __init__(self, roots: Sequence[Path], home: Path, store: Callable[[], Store]) -> None:
        self._roots = [root.resolve() for root in roots]
        self._store = store
        self._thumbnails = home / "cache" / "studio-thumbnails"

    def readable(self, given: str | Path) -> Path:
        """The real path of an existing file or folder that may be shown: below a root, or registered or inside what is registered."""
        path = self._real(given)
        if not self._below_root(path) and not self._registered(path) and not self._registered(expanded(given).absolute()):
            raise Refused(f"{given}: this is not below a folder of this Studio, nor registered. Start it with --root DIR, or register it.")
        return path

    def writable(self, given: str | Path, *, exists: bool = True) -> Path:
        """The real path of what may be changed: below a root. Not `exists`: its folder must be there."""
        path = self._real(given) if exists else self._real(Path(given).parent) / Path(given).name
        if not self._below_root(path):
            raise Refused(f"{given}: the Studio writes below its own folders only. Start it with --root DIR to add one.")
        return path

    def _real(self, given: str | Path) -> Path:
        try:
            return expanded(given).absolute().resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise NotFound(f"{given}: there is no such file.") from error

    def _below_root(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)

    def _registered(self, path: Path) -> bool:
        """Whether a real path is the embedded base's, or is registered or inside what is."""
        return path.is_relative_to(pocket_dir().resolve()) or self._store().holds([path, *path.parents])

    def thumbnail(self, path: Path, side: int) -> tuple[bytes, str]:
        """An image as WebP of about `side` pixels at most, with its media type; kept in the home by path, size and time of change."""
        side = next((one for one in SIDES if one >= side), SIDES[-1])
        stat = path.stat()
        name = sha256(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0{side}".encode("utf-8", "surrogateescape")).hexdigest()
        kept = self._thumbnails / name[:2] / f"{name}.webp"
        with suppress(OSError):
            return kept.read_bytes(), "image/webp"
        data = _small(path, side)
        with suppress(OSError):  # a home on a full or read-only disk: it is made again the next time
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(kept) as written:
                written.write(data)
        return data, "image/webp"


def _small(path: Path, side: int) -> bytes:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (side * 2, side * 2))
            image = ImageOps.exif_transpose(opened)
            image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFile(path, "unreadable", f"is no image that can be shown ({error}).") from error
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    whole = io.BytesIO()
    image.save(whole, "WEBP", quality=82, method=2)
    return whole.getvalue()
