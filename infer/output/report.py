"""The report: one HTML file that opens from the disk, with the images inside it and nothing fetched from anywhere."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infer.draw.machine import version_of
from infer.output.gallery import OUTSIDE, CellImage, Gallery
from registry.formats.atomic_file import write_text
from registry.printable import script_json

LARGEST = 64_000_000  # bytes of images in the page; beyond it they are embedded smaller, with a note
SMALL = 320  # pixels a side of the images in the report of a grid that is still being drawn
REFRESH = 5  # seconds after which such a report is loaded again
TILE = (160, 256)  # pixels a cell at first: for small images, for those of 512 and more


def write_report(path: Path, gallery: Gallery) -> list[str]:
    """Write the report; gives notes on images that had to be embedded smaller."""
    files = dict.fromkeys(one.path for one in gallery.images if one.path is not None)
    images, kind, notes = embed([file.read_bytes() for file in files])
    numbers = {file: index for index, file in enumerate(files)}
    write_text(path, page(gallery, images, numbers, kind, notes))
    return notes


class LiveImages:
    """Images of a page that is written again and again, each made once: small ones as they are, others as a WebP of SMALL pixels."""

    def __init__(self) -> None:
        self._uris: dict[Path, str] = {}
        self.whole = True

    def uri(self, path: Path) -> str:
        """The data URI of an image that was written."""
        if path not in self._uris:
            png = path.read_bytes()
            self.whole = self.whole and max(_size(png)) <= SMALL
            self._uris[path] = _uri("png", png) if max(_size(png)) <= SMALL else _uri("webp", _webp(png, SMALL))
        return self._uris[path]


def write_live_report(path: Path, gallery: Gallery, live: LiveImages) -> None:
    """Write the report of a grid that is being drawn; a browser loads it again by itself."""
    files = list(dict.fromkeys(one.path for one in gallery.images if one.path is not None))
    images = [live.uri(file) for file in files]
    waiting = [one for one in gallery.images if one.status not in (OUTSIDE, "absent")]
    done = sum(one.status != "missing" for one in waiting)
    notes = [
        f"Being drawn: {done} of {len(waiting)} cells are done, and this page loads itself again every {REFRESH} seconds. "
        "If nothing changes any more the run was ended: start it again, and it goes on where it was."
    ]
    notes += [] if live.whole else [f"Until then its images are at most {SMALL} pixels a side. The PNGs are in images/."]
    numbers = {file: index for index, file in enumerate(files)}
    write_text(path, page(gallery, images, numbers, "png" if live.whole else "webp", notes, refresh=REFRESH))


def embed(pngs: list[bytes]) -> tuple[list[str], str, list[str]]:
    """The images as data URIs, their kind, and a note when they are not the PNGs themselves."""
    if sum(map(len, pngs)) <= LARGEST:
        return [_uri("png", png) for png in pngs], "png", []
    for side in (None, 1024, 640, 384, 256, 128):
        smaller = [_webp(png, side) for png in pngs]
        if sum(map(len, smaller)) <= LARGEST:
            break
    limit = "" if side is None else f", at most {side} pixels a side"
    size = f"{sum(map(len, pngs)) / 1e6:.0f} MB"
    return (
        [_uri("webp", one) for one in smaller],
        "webp",
        [f"The report shows its images as WebP{limit}: the PNGs are {size}. They are in images/."],
    )


def page(
    gallery: Gallery, images: list[str], numbers: dict[Path, int], kind: str, notes: Iterable[str] = (), *, refresh: int | None = None
) -> str:
    """The HTML; a browser loads it again after `refresh` seconds, unless an image is open in it then.

    Whatever a person wrote is escaped in the head and plain text in the script's data."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    loader = PackageLoader("infer.output")
    environment = Environment(loader=loader, autoescape=select_autoescape(default=True), undefined=StrictUndefined)

    def own(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])  # our own file: it holds no text a person gave

    return environment.get_template("report.html").render(
        title=gallery.title,
        generator=f"LoRA Loom {version_of('loraloom')}",
        summary=_summary(gallery),
        fixed=list(gallery.fixed.items()),
        sources=[(one.label, _uri("png", one.png)) for one in gallery.sources],
        notes=[*gallery.notes, *notes],
        css=own("report.css"),
        js=own("page.js") + own("zoom.js") + own("report.js"),
        data=Markup(script_json(_data(gallery, images, numbers, kind) | {"refresh": refresh})),
    )


def _data(gallery: Gallery, images: list[str], numbers: dict[Path, int], kind: str) -> dict[str, Any]:
    layout = gallery.layout
    wide = max((_width(one.path) for one in gallery.images if one.path), default=64)
    return {
        "title": gallery.title,
        "axes": [{"name": one.name, "labels": list(one.labels)} for one in layout.dimensions],
        "rows": layout.rows,
        "columns": layout.columns,
        "tile": TILE[0] if wide < 512 else TILE[1],
        "kind": kind,
        "images": images,
        "cells": [_cell(one, numbers) for one in gallery.images],
    }


def _cell(image: CellImage, numbers: dict[Path, int]) -> dict[str, Any]:
    return {
        "place": list(image.place),
        "image": numbers[image.path] if image.path else None,
        "key": image.key,
        "status": image.status,
        "error": image.error,
        "seconds": round(image.seconds, 3),
        "settings": [[name, value] for name, value in image.settings.items()],
        "details": [[name, value] for name, value in image.details.items()],
        "parameters": image.parameters,
    }


def _summary(gallery: Gallery) -> str:
    result = gallery.result
    outside = sum(one.status == OUTSIDE for one in gallery.images)
    parts = [f"{sum(one.status not in (OUTSIDE, 'absent') for one in gallery.images)} cells"]
    parts += [f"{result[name]} {name}" for name in ("rendered", "reused", "failed") if result.get(name)]
    parts += [f"{outside} made elsewhere"] if outside else []
    if missing := sum(one.status == "missing" for one in gallery.images):
        parts.append(f"{missing} not drawn")
    if result.get("seconds"):
        parts.append(f"{result['seconds']:.1f} s")
    return " · ".join(parts)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _webp(png: bytes, side: int | None) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    if side is not None and max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    whole = io.BytesIO()
    image.save(whole, "WEBP", quality=90)
    return whole.getvalue()


def _width(path: Path) -> int:
    with path.open("rb") as file:
        return _size(file.read(24))[0]


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, from the first chunk."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
