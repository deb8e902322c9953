"""Sizes of a set's images, and the buckets and crops that training makes of them: by the planner's own functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from loraloom.studio.routes import Ask
from registry.errors import Refused
from registry.formats.image_file import ORIENTATION, Size, Unreadable, decode
from train.data.dataset import Sample
from train.data.items import Item, Sizes, heldout_items, items_of
from train.settings.data import MOST_CROPS

LARGEST_SIDE = 8192
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Shape:
    """An image's size, or why it has none."""

    size: Size | None
    fault: str | None = None


def sizes_asked(ask: Ask) -> Sizes | None:
    """The sizes of `resolution` (512, or 512,768), `multiple`, `step`, `buckets`, `crops`; None without a resolution. Raises Refused."""
    text = ask.text("resolution", "").strip()
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 6 and 0 < int(part) <= LARGEST_SIDE for part in parts):
        raise Refused(f"resolution: expected pixels such as 1024, or several with commas between them, got {text!r:.60}.")
    multiple = ask.number("multiple", 8, low=1, high=256)
    sides = tuple(sorted({int(part) for part in parts}))
    step = ask.number("step", 0, high=2048)
    if wrong := [side for side in (*sides, *([step] if step else [])) if side % multiple]:
        raise Refused(f"{wrong[0]} is no multiple of {multiple} pixels, which the model needs.")
    return Sizes(
        sides=sides,
        multiple=multiple,
        step=step or None,
        buckets=ask.flag("buckets", True),
        crops=ask.number("crops", 1, low=1, high=MOST_CROPS),
    )


def shape_of(path: Path) -> Shape:
    """The size of an image as it is shown, from its header; kept by its time of change."""
    try:
        stat = path.stat()
    except OSError as error:
        return Shape(None, error.strerror or str(error))
    return _shape(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=200_000)
def _shape(path: Path, _changed: int, _bytes: int) -> Shape:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if opened.getexif().get(ORIENTATION, 1) in TURNED:
                width, height = height, width
            return Shape(Size(width, height))
    except Exception:  # a format whose plugin is not loaded yet, or a file that is none: the reader says what it is
        try:
            return Shape(decode(path.read_bytes())[1])
        except (Unreadable, OSError) as error:
            return Shape(None, str(error))


def items_by_name(images: Mapping[str, Path], sizes: Sizes) -> dict[str, list[Item]]:
    """The training items of the images by their names; those of heldout/ as held-out images have them."""
    samples = [_sample(name, path, shape.size, sizes) for name, path in images.items() if (shape := shape_of(path)).size]
    trained = [sample for sample in samples if not sample.name.startswith("heldout/")]
    held = [sample for sample in samples if sample.name.startswith("heldout/")]
    found: dict[str, list[Item]] = {}
    for item in (*items_of(trained, sizes), *heldout_items(held, sizes)):
        found.setdefault(item.sample.name, []).append(item)
    return found


def _sample(name: str, path: Path, size: Size, sizes: Sizes) -> Sample:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if sizes.crops > 1 else ""  # random crops depend on the image's bytes
    return Sample(name, sha256, size, None, path.read_bytes)


def crops_json(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Items as the page draws them: corners and sizes as shares of the image."""
    found = []
    for item in items:
        width, height = item.scaled
        bucket = item.bucket
        boxes = [[view.left / width, view.top / height, bucket.width / width, bucket.height / height] for view in item.views]
        found.append({"bucket": f"{bucket.width}x{bucket.height}", "enlarged": item.enlarged, "cropped": item.cropped, "boxes": boxes})
    return found
