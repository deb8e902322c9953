"""The previews of a run by step, each beside the training image that it is nearest to."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile
from registry.formats.image_file import Unreadable, decode
from registry.images.image_hash import BITS, Copies, Nearest
from train.output.style import StyleCurve, style_curve
from train.run_report.read import RunFiles
from train.run_report.set_images import SetImage

if TYPE_CHECKING:
    from PIL.Image import Image

STEPS = 24  # that the page shows; in between are left out, first and last are kept
PROMPTS = 24
EXACT = 160  # pixels a side of images that are embedded as they are; larger ones as WebP
SIDE = 384  # pixels a side of larger ones at most


@dataclass(frozen=True, kw_only=True)
class PreviewImage:
    """One preview at one step; `nearest` is its nearest training image, None without any."""

    step: int
    file: Path
    image: Image
    nearest: Nearest | None


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    """One prompt at every step that was drawn, of one seed; step 0 is the base."""

    prompt: str
    seed: int
    images: tuple[PreviewImage, ...]


def preview_rows(run: RunFiles, trained: Sequence[SetImage]) -> list[PreviewRow]:
    """The previews by prompt. Raises BadFile for a preview that is no image."""
    copies = Copies([image.image for image in trained])
    numbers = sorted({number for _, number in run.previews})
    prompts = run.config.preview.prompts or []
    rows = []
    for number in numbers:
        files = {step: file for (step, other), file in run.previews.items() if other == number}
        images = []
        for step, file in files.items():
            image = _image(file)
            images.append(PreviewImage(step=step, file=file, image=image, nearest=copies.nearest(image)))
        prompt = prompts[number - 1] if number <= len(prompts) else f"prompt {number}"
        rows.append(PreviewRow(prompt=prompt, seed=run.config.preview.seed + number - 1, images=tuple(images)))
    return rows


def style_of(rows: Sequence[PreviewRow], heldout: Sequence[SetImage]) -> StyleCurve | None:
    """How near each step's previews are to the held-out images."""
    drawn: dict[int, list[Image]] = {}
    for row in rows:
        for one in row.images:
            drawn.setdefault(one.step, []).append(one.image)
    return style_curve([image.image for image in heldout], dict(sorted(drawn.items())))


def rows_json(rows: Sequence[PreviewRow], trained: Sequence[SetImage]) -> list[dict[str, Any]]:
    """Plain values with stable keys; paths are absolute."""
    return [
        {
            "prompt": row.prompt,
            "seed": row.seed,
            "images": [{"step": one.step, "file": str(one.file), "nearest": nearest_json(one.nearest, trained)} for one in row.images],
        }
        for row in rows
    ]


def nearest_json(found: Nearest | None, trained: Sequence[SetImage]) -> dict[str, Any] | None:
    """The nearest training image by name, its distance as a share of the hash's bits and as the mean difference of small copies."""
    if found is None:
        return None
    return {"file": trained[found.place].name, "distance": found.bits / BITS, "bits": found.bits, "difference": found.difference}


def steps_shown(steps: Sequence[int]) -> list[int]:
    """At most STEPS of the steps, the first and the last among them."""
    if len(steps) <= STEPS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (STEPS - 1))] for place in range(STEPS)]


class Embedded:
    """Images of a page as data URIs, each once."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, image: Image, *, side: int = SIDE) -> int:
        """The place of an image among the URIs: a PNG where it is small, else a WebP of at most `side` pixels."""
        uri = _uri(image, side)
        if uri not in self._places:
            self._places[uri] = len(self.uris)
            self.uris.append(uri)
        return self._places[uri]


def cards(rows: Sequence[PreviewRow], steps: Sequence[int], trained: Sequence[SetImage], embedded: Embedded) -> list[dict[str, Any]]:
    """What the page's script shows of each prompt: an image a step, None where it was not drawn."""
    found: list[dict[str, Any]] = []
    for row in rows[:PROMPTS]:
        images = {one.step: one for one in row.images}
        found.append({"prompt": row.prompt, "seed": row.seed, "images": [_cell(images.get(step), trained, embedded) for step in steps]})
    return found


def _cell(one: PreviewImage | None, trained: Sequence[SetImage], embedded: Embedded) -> dict[str, Any] | None:
    if one is None:
        return None
    near = one.nearest
    beside = None
    if near is not None:
        known = trained[near.place]
        beside = {"image": embedded.place(known.image, side=256), "name": known.name, "bits": near.bits}
    return {"image": embedded.place(one.image), "nearest": beside}


def _image(file: Path) -> Image:
    try:
        return decode(file.read_bytes())[0]
    except Unreadable as error:
        raise BadFile(file, "damaged", f"{error}. Remove this preview, or copy it again.") from error


def _uri(image: Image, side: int) -> str:
    buffer = io.BytesIO()
    if max(image.size) <= min(side, EXACT):
        image.save(buffer, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    small = image.copy()
    small.thumbnail((side, side))
    small.save(buffer, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
