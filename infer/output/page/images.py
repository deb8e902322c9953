"""The images of a page: beside it, with small copies for the tiles, or inside it as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from infer.output.encoding import kind_of, size_of
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file

LARGEST = 64_000_000  # bytes of images in a page; beyond it they are embedded smaller, with a note
SMALL = 8_000_000  # bytes of images up to which a page holds them itself, unless it is asked for the other
SIDE = 384  # pixels of the longer side of a small copy; images up to it need none


@dataclass(frozen=True)
class PageImage:
    """An image as the page finds it: the address, that of its small copy ("": none), and its size in pixels."""

    address: str
    small: str
    width: int
    height: int

    def to_json(self) -> list[str | int]:
        """As the page's data has it."""
        return [self.address, self.small, self.width, self.height]


def embeds(files: Iterable[Path], single_file: bool | None) -> bool:
    """Whether a page holds these images itself: as it is asked to (None: where they are small)."""
    return sum(file.stat().st_size for file in files) <= SMALL if single_file is None else single_file


def beside(page: Path, file: Path) -> PageImage:
    """An image in the page's own folder; a large one gets its small copy in thumbs/, once."""
    inner = file.relative_to(page.parent)
    width, height = size_of(file)
    if max(width, height) <= SIDE:
        return PageImage(_address(inner), "", width, height)
    copy = Path("thumbs") / f"{file.stem}.webp"
    if not (page.parent / copy).is_file():
        make_folder((page.parent / copy).parent)
        with atomic_file(page.parent / copy) as written:
            written.write(_webp(file.read_bytes(), SIDE, quality=85, method=2))
    return PageImage(_address(inner), _address(copy), width, height)


def _address(inner: Path) -> str:
    return quote(inner.as_posix(), safe="/")


def embedded(files: Iterable[Path]) -> tuple[dict[Path, PageImage], str, list[str]]:
    """The images as data URIs, their kind, and a note when they are not the files themselves."""
    paths = list(files)
    uris, kind, notes = embed([file.read_bytes() for file in paths])
    return {file: PageImage(uri, "", *size_of(file)) for file, uri in zip(paths, uris, strict=True)}, kind, notes


def embed(pngs: list[bytes]) -> tuple[list[str], str, list[str]]:
    """The images as data URIs, their kind, and a note when they are not the files themselves."""
    if sum(map(len, pngs)) <= LARGEST:
        return [data_uri(kind_of(png), png) for png in pngs], "png", []
    for side in (None, 1024, 640, 384, 256, 128):
        smaller = [_webp(png, side) for png in pngs]
        if sum(map(len, smaller)) <= LARGEST:
            break
    limit = "" if side is None else f", at most {side} pixels a side"
    size = f"{sum(map(len, pngs)) / 1e6:.0f} MB"
    return (
        [data_uri("webp", one) for one in smaller],
        "webp",
        [f"The report shows its images as WebP{limit}: the files are {size}. They are in images/."],
    )


def small_copy(png: bytes) -> tuple[str, bytes]:
    """An image as a page holds it beside its cells: (its kind, its bytes); a large one is made small."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        small = max(opened.size) <= SIDE
    return ("png", png) if small else ("webp", _webp(png, SIDE, quality=85))


def data_uri(kind: str, data: bytes) -> str:
    """The bytes of an image as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _webp(png: bytes, side: int | None, *, quality: int = 90, method: int = 4) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    if side is not None and max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    whole = io.BytesIO()
    image.save(whole, "WEBP", quality=quality, method=method)
    return whole.getvalue()
