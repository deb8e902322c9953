"""A cell as a PNG: the pixels, A1111's `parameters` text for other tools, and our own Render for `loraloom reproduce`."""

import io
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from infer.draw.machine import version_of
from infer.draw.render import Render
from infer.metadata.texts import image_texts
from infer.output.encoding import Encoding
from infer.output.infotext import ModelNames, infotext
from registry.errors import BadFile, LoomError
from registry.formats.image_file import Unreadable
from registry.formats.safetensors_header import open_regular
from registry.plain_values import from_json, storable

if TYPE_CHECKING:
    from PIL.Image import Image

KEY = "loraloom"  # the keyword of our own text chunk
OWN_TEXT = KEY.encode("latin-1") + b"\0\0\0\0\0"  # what it begins with, an iTXt that is not compressed
LARGEST = 1 << 30  # bytes of a file that is read as an image
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the chunks that an image is drawn from


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A cell's PNG, and of its texts what a report shows."""

    png: bytes
    parameters: str
    pixels_sha256: str


@dataclass(frozen=True, kw_only=True)
class Carried:
    """The metadata of an image: the Render, its key, the sha256 of the pixels as drawn, `parameters`, and how a lossy one was encoded."""

    render: Render
    key: str
    pixels_sha256: str
    parameters: str
    made_with: Mapping[str, str]
    encoding: Encoding | None = None


def encode_png(image: "Image", render: Render, names: ModelNames) -> bytes:
    """The image of a resolved Render as PNG bytes, with both texts."""
    plain = io.BytesIO()
    image.save(plain, "PNG", compress_level=6)
    return label_png(plain.getvalue(), render, names, pixels_sha256=hash_pixels(image))


def label_png(png: bytes, render: Render, names: ModelNames, *, pixels_sha256: str | None = None) -> bytes:
    """The same pixels under the texts of another Render of the same key: names change, contents do not. Nothing is decoded."""
    return labelled(png, render, names, pixels_sha256=pixels_sha256).png


def labelled(png: bytes, render: Render, names: ModelNames, *, pixels_sha256: str | None = None) -> Labelled:
    """`label_png` with its texts. Without `pixels_sha256` the PNG is one that `encode_png` gave: it has its own."""
    made = f"LoRA Loom {version_of('loraloom')}"
    chunks = _chunks(png)
    if pixels_sha256 is None:
        pixels_sha256 = str(json.loads(next(data[len(OWN_TEXT) :] for _, data in chunks if data.startswith(OWN_TEXT)))["pixels_sha256"])
    own = {"made_by": made, "key": render.key(), "pixels_sha256": pixels_sha256, "render": render.to_json()}
    texts = {"parameters": infotext(render, names, version=made), KEY: json.dumps(own, ensure_ascii=False, sort_keys=True)}
    kept = [(kind, data) for kind, data in chunks if kind not in (b"tEXt", b"iTXt", b"zTXt")]
    written = [kept[0], *(_text_chunk(keyword, text) for keyword, text in texts.items()), *kept[1:]]
    return Labelled(
        png=SIGNATURE + b"".join(_packed(kind, data) for kind, data in written),
        parameters=storable(texts["parameters"]),
        pixels_sha256=pixels_sha256,
    )


def read_png(path: Path) -> Carried:
    """The metadata of the image at `path`, of a JPEG or WebP too. Raises BadFile where `loraloom grid` did not write it."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST:
            raise BadFile(path, "unreadable", f"has {size:,} bytes; at most {LARGEST:,} are read as an image.")
        try:
            data = file.read(LARGEST)
        except OSError as error:
            raise BadFile(path, "unreadable", f"cannot be read ({error.strerror}).") from error
    return read_carried(data, path)


def read_carried(png: bytes, path: Path = Path("image.png")) -> Carried:
    """`read_png` of bytes; `path` is for the message."""
    texts = texts_of(png, path)
    if KEY not in texts:
        raise BadFile(
            path,
            "no-render",
            "carries no Render of LoRA Loom. Expected an image that `loraloom grid` wrote, not edited or sent through a chat since.",
        )
    try:
        own = from_json(texts[KEY])
        render = Render.from_json(own["render"])
        return Carried(
            render=render,
            key=str(own["key"]),
            pixels_sha256=str(own["pixels_sha256"]),
            parameters=texts.get("parameters", texts.get("UserComment", "")),
            made_with=dict(render.versions),
            encoding=Encoding.from_json(own.get("encoding")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, LoomError) as error:
        raise BadFile(
            path, "unreadable-render", f"carries a Render that cannot be read ({error!r}). Was it written by a later version?"
        ) from error


def texts_of(data: bytes, path: Path = Path("image.png")) -> dict[str, str]:
    """The texts of an image, by name. Raises BadFile for what is none."""
    try:
        return image_texts(data)
    except Unreadable as error:
        raise BadFile(path, "not-a-png", f"is no image that can be read: {error}.") from error


def bare_png(png: bytes, path: Path = Path("image.png")) -> bytes:
    """The same pixels without texts and whatever else the file carries, as PNG. Raises BadFile for what is no whole image."""
    from PIL import Image

    try:
        if not png.startswith(SIGNATURE):
            whole = io.BytesIO()
            with Image.open(io.BytesIO(png), formats=["JPEG", "WEBP"]) as image:
                image.convert("RGB").save(whole, "PNG", compress_level=6, exif=b"", icc_profile=None)
            png = whole.getvalue()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.verify()
        chunks = [(kind, data) for kind, data in _chunks(png) if kind in PIXELS]
    except Exception as error:  # PIL raises whatever its reader raises
        raise BadFile(path, "not-a-png", f"is not a PNG that can be read ({error}).") from error
    end = next((place for place, (kind, _) in enumerate(chunks) if kind == b"IEND"), len(chunks))
    return SIGNATURE + b"".join(_packed(kind, data) for kind, data in chunks[: end + 1])


def hash_pixels(image: "Image") -> str:
    """sha256 of mode, size and pixels: unchanged when a file is compressed again."""
    return sha256(f"{image.mode} {image.width} {image.height} ".encode() + image.tobytes()).hexdigest()


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    at = len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _packed(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """tEXt where Latin-1 holds the text, as A1111 writes it; else iTXt. Our own is always iTXt."""
    if keyword != KEY:
        try:
            return b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
        except UnicodeEncodeError:
            pass
    return b"iTXt", keyword.encode("latin-1") + OWN_TEXT[len(KEY) :] + text.encode("utf-8", "surrogatepass")
