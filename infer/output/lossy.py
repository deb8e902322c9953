"""An image of a run folder as JPEG or WebP: the pixels encoded, and in EXIF the texts that a PNG has in chunks.

UserComment holds `parameters` as A1111 writes it (UNICODE, UTF-16 big-endian), MakerNote our own text. The cell store keeps PNGs: the
format of a folder is no part of any key.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from infer.draw.machine import version_of
from infer.metadata.texts import EXIF_IFD, MAKER_NOTE, OWN, USER_COMMENT
from infer.output.encoding import Encoding
from infer.output.png import KEY, hash_pixels, texts_of
from registry.errors import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

    from infer.draw.render import Render

SOFTWARE = 0x0131
ASCII, LONG, UNDEFINED = 2, 4, 7  # types of EXIF
MOST_IN_JPEG = 65_000  # bytes of EXIF; a segment of JPEG holds 65,533


def encode_lossy(png: bytes, format: str, quality: int) -> bytes:
    """The image of a labelled PNG in the format, with its texts."""
    from PIL import Image as Pillow

    texts = texts_of(png)
    with Pillow.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    decoded = through_encoder(image, format=format, quality=quality)
    encoding = Encoding(format=format, quality=quality, encoder=encoder(), pixels_sha256=hash_pixels(decoded))
    own = json.dumps({**json.loads(texts[KEY]), "encoding": asdict(encoding)}, ensure_ascii=False, sort_keys=True)
    return _encoded(image, format, quality, _exif(texts.get("parameters", ""), own))


def encoder() -> str:
    """What encodes here, with its version."""
    return f"Pillow {version_of('pillow')}"


def through_encoder(image: Image, *, format: str, quality: int) -> Image:
    """The image (RGB) as a reader gets it behind the encoder."""
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(_encoded(image, format, quality, None))) as opened:
        return opened.convert("RGB")


def metadata_fault(render: Render, format: str) -> str | None:
    """Why the texts of a Render's image do not fit into the format; None where they do."""
    texts = len(render.prompt) + len(render.negative or "")
    if format != "jpeg" or texts < 2000:
        return None
    most = 2 * (2 * texts + 4000) + len(json.dumps(render.to_json()))  # UTF-16, every letter escaped
    if most <= MOST_IN_JPEG:
        return None
    return f"The settings of a prompt of {texts:,} letters may not fit into the 64 KiB of EXIF in a JPEG. Give image_format=webp or png."


def _exif(parameters: str, own: str) -> bytes:
    """An EXIF block (EXIF 2.32, 4.6): both texts are UNDEFINED, as their readers expect; Pillow would write them as BYTE."""
    software = f"LoRA Loom {version_of('loraloom')}".encode("ascii", "replace") + b"\0"
    software += bytes(len(software) % 2)  # values begin at even places
    comment = b"UNICODE\0" + parameters.encode("utf-16-be", "surrogatepass")
    note = OWN + own.encode("utf-8", "surrogatepass")
    note += b" " * (len(note) % 2)
    first = 8  # bytes of the TIFF header
    inner = first + 2 + 2 * 12 + 4  # behind the first directory of two entries
    data = inner + 2 + 2 * 12 + 4  # behind the second
    entries = [(SOFTWARE, ASCII, software), (MAKER_NOTE, UNDEFINED, note), (USER_COMMENT, UNDEFINED, comment)]
    places = [data, data + len(software), data + len(software) + len(note)]
    written = [struct.pack(">HHII", tag, kind, len(value), place) for (tag, kind, value), place in zip(entries, places, strict=True)]
    pointer = struct.pack(">HHII", EXIF_IFD, LONG, 1, inner)
    directories = [struct.pack(">H", 2), written[0], pointer, bytes(4), struct.pack(">H", 2), *written[1:], bytes(4)]
    return b"Exif\0\0MM\0*" + struct.pack(">I", first) + b"".join([*directories, software, note, comment])


def _encoded(image: Image, format: str, quality: int, exif: bytes | None) -> bytes:
    whole = io.BytesIO()
    given: dict[str, Any] = {} if exif is None else {"exif": exif}
    try:
        if format == "jpeg":
            image.save(whole, "JPEG", quality=quality, subsampling=0, **given)  # 4:4:4: colours are what adapters are compared by
        else:
            image.save(whole, "WEBP", quality=quality, method=4, **given)
    except ValueError as error:
        raise Refused(f"The image cannot be saved as {format} ({error}). Give image_format=png.") from error
    return whole.getvalue()
