"""JPEG and WebP: the texts in EXIF as A1111 reads them, the whole Render, and a comparison behind the same encoder."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from infer.metadata.a1111 import parts
from infer.metadata.reader import read_metadata
from infer.output.encoding import ImageFormat
from infer.output.lossy import encode_lossy, metadata_fault, through_encoder
from infer.output.png import bare_png, encode_png, hash_pixels, read_carried, read_png
from infer.output.reproduce import reproduce
from infer.vote.finished import read_grid
from infer.vote.page.images import bare_image
from registry.errors import BadFile, Faults
from tests.infer.conftest import Shelf
from tests.infer.images import NAMES, resolved, square

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

BOTH = pytest.mark.parametrize("kind", ["jpeg", "webp"])


@BOTH
def test_the_texts_of_a_lossy_image(kind: str) -> None:
    png = encode_png(square((200, 30, 40)), resolved(prompt="eine Katze, 猫 (sitzend)", negative="schlecht"), NAMES)
    data = encode_lossy(png, kind, 80)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind.upper()
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert through_encoder(square((200, 30, 40)), format=kind, quality=80).tobytes() == image.convert("RGB").tobytes()
        decoded = hash_pixels(image.convert("RGB"))
    assert data.count(bytes.fromhex("92860007")) == 1 and data.count(bytes.fromhex("927c0007")) == 1  # UNDEFINED: piexif reads no other
    assert comment[:8] == b"UNICODE\0"  # EXIF 2.32; A1111 writes it by piexif, which knows big-endian alone
    assert parts(comment[8:].decode("utf-16-be"))[:2] == ("eine Katze, 猫 \\(sitzend\\)", "schlecht")
    first, second = read_carried(png), read_carried(data)
    assert (second.render, second.key, second.parameters, second.pixels_sha256) == (
        first.render,
        first.key,
        first.parameters,
        first.pixels_sha256,
    )
    assert second.encoding is not None and str(second.encoding) == f"{'JPEG' if kind == 'jpeg' else 'WebP'} of quality 80"
    assert second.encoding.pixels_sha256 == decoded and first.encoding is None
    bare = bare_png(data)
    with Image.open(io.BytesIO(bare)) as image:
        assert image.format == "PNG" and hash_pixels(image) == decoded and b"tEXt" not in bare and b"eXIf" not in bare


def test_a_better_quality_is_nearer() -> None:
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    for kind in ("jpeg", "webp"):
        errors = [
            sum(abs(a - b) for a, b in zip(image.tobytes(), through_encoder(image, format=kind, quality=quality).tobytes(), strict=True))
            for quality in (30, 90)
        ]
        assert errors[1] < errors[0] / 2


def test_a_render_that_jpeg_cannot_hold_is_refused_before_it_is_drawn(shelf: Shelf) -> None:
    long = resolved(prompt="a cat, " * 4000)
    assert metadata_fault(long, "webp") is None and metadata_fault(resolved(), "jpeg") is None
    assert "may not fit" in str(metadata_fault(long, "jpeg"))
    with pytest.raises(Faults, match="64 KiB of EXIF"):
        plan(GridConfig(base="tiny", prompt=long.prompt, image_format=_format("jpeg")), shelf.store)


def _format(name: str) -> ImageFormat:
    return ImageFormat[name]


@pytest.mark.slow
@BOTH
def test_a_grid_in_another_format(shelf: Shelf, tmp_path: Path, kind: str) -> None:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 2, "out": str(tmp_path), "axes": Axes(seed=[1, 2])}
    first = run(GridConfig(**given), shelf.store)
    found = run(GridConfig(**given, image_format=_format(kind), quality=70), shelf.store)
    assert (first.result["rendered"], found.result["rendered"], found.result["reused"]) == (2, 0, 2)  # the store keeps PNGs: the same keys
    lines = [json.loads(line) for line in (found.folder / "cells.jsonl").read_text().splitlines()]
    suffix = {"jpeg": ".jpg", "webp": ".webp"}[kind]
    assert [line["image"] for line in lines] == [f"images/seed-1{suffix}", f"images/seed-2{suffix}"]
    assert [json.loads(line)["key"] for line in (first.folder / "cells.jsonl").read_text().splitlines()] == [line["key"] for line in lines]
    image = found.folder / lines[0]["image"]
    with Image.open(found.folder / "sheet.png") as sheet, Image.open(first.folder / "sheet.png") as lossless:
        assert sheet.size == lossless.size  # the images' sizes are read
    assert f"seed-1{suffix}" in (found.folder / "report.html").read_text() or "data:image/" in (found.folder / "report.html").read_text()
    made = reproduce(image, shelf.store)
    assert made.equal and made.reproduced and not made.edited and "of quality 70, which loses pixels" in made.to_text()
    assert made.to_json()["encoding"] == {"format": kind, "quality": 70}
    assert read_metadata(image).render == read_png(first.folder / "images" / "seed-1.png").render
    assert plan(GridConfig(from_image=str(image)), shelf.store).stored == 1
    assert [cell.image for cell in read_grid(found.folder).cells] == [found.folder / line["image"] for line in lines]
    assert bare_image(image).startswith(b"\x89PNG")
    with Image.open(image) as opened:
        opened.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image, quality=70, exif=opened.getexif())
    assert reproduce(image, shelf.store).edited


def test_quality_goes_with_a_lossy_format() -> None:
    wrong: list[dict[str, Any]] = [{"quality": 50}, {"quality": 0, "image_format": _format("jpeg")}]
    for given in [*wrong, {"quality": 101, "image_format": _format("webp")}]:
        with pytest.raises(Faults, match="quality must be in 1"):
            GridConfig(prompt="a cat", **given)


def test_damaged_lossy_images_are_refused(tmp_path: Path) -> None:
    data = encode_lossy(encode_png(square((1, 2, 3)), resolved(), NAMES), "jpeg", 90)
    for damaged in (data[:200], data.replace(b"loraloom\0", b"loraloon\0"), data.replace(b'"quality": 90', b'"quality": -1')):
        (tmp_path / "a.jpg").write_bytes(damaged)
        with pytest.raises(BadFile):
            read_png(tmp_path / "a.jpg")
