"""Folders of images made elsewhere, as other programs save them."""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def image(path: Path, *, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 40), **texts: str) -> Path:
    """A PNG with a stripe, and these texts in it; a JPEG or WebP by its suffix, with `UserComment` as A1111 writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.new("RGB", size, colour)
    made.paste((250, 250, 250), (0, 0, max(size[0] // 4, 1), size[1]))
    if path.suffix != ".png":
        exif = Image.Exif()
        if "UserComment" in texts:
            exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + texts["UserComment"].encode("utf-16-be")
        made.save(path, exif=exif)
        return path
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    made.save(path, pnginfo=info)
    return path


def captions(folder: Path, rows: Mapping[str, object]) -> None:
    (folder / "captions.json").write_text(json.dumps(rows), encoding="utf-8")
