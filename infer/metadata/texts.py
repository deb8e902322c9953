"""The texts that an image file carries: PNG's text chunks, EXIF's UserComment and descriptions, XMP. Of any file, and within bounds."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

from infer.metadata.stealth import hidden_text
from registry.formats.image_file import Unreadable, reason_of
from registry.plain_values import storable

HIDDEN = "hidden in the pixels"  # the name of a text that is no text of the file
LONGEST, MOST = 1 << 24, 40  # characters of a text that are kept, texts of an image
EXIF = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software", 0x013B: "Artist", 0x8298: "Copyright"}
USER_COMMENT, MAKER_NOTE, EXIF_IFD = 0x9286, 0x927C, 0x8769
OWN = b"loraloom\0"  # what our own MakerNote begins with
DESCRIPTION = re.compile(r"<dc:description>.{0,1000}?<rdf:li[^>]{0,200}>(.{0,20000}?)</rdf:li>", re.DOTALL)
SOURCE_TYPE = re.compile(r"DigitalSourceType[^>]{0,80}?[\"'>]([^\"'<>]{1,200}/([A-Za-z]+))[\"'<]")


def image_texts(data: bytes) -> dict[str, str]:
    """Name -> text of an image's metadata, at most MOST of LONGEST characters. Raises Unreadable for what is no image."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()  # text chunks may come after the pixels
                found = dict(_texts(opened))
                if opened.format in ("PNG", "WEBP") and (hidden := hidden_text(opened)) is not None:
                    found[HIDDEN] = hidden
    except Exception as error:  # PIL's plug-ins raise whatever their formats raise
        raise Unreadable(f"it cannot be decoded ({reason_of(error)})") from error
    if b"c2pa" in data and (b"jumb" in data or b"caBX" in data):
        found["C2PA"] = "a manifest is there (not verified)"
    kept = [(name, text) for name, text in found.items() if text.strip()]
    return {storable(name): storable(text[:LONGEST]) for name, text in kept[:MOST]}


def _texts(image: Any) -> Iterator[tuple[str, str]]:
    for name, value in image.info.items():
        if isinstance(value, str) and name not in ("xmp", "XML:com.adobe.xmp"):
            yield str(name)[:100], value
        elif name == "comment" and isinstance(value, bytes):
            yield "comment", value.decode("utf-8", "replace")
    try:
        exif = image.getexif()
        inner = exif.get_ifd(EXIF_IFD)
    except Exception:  # a damaged EXIF block: its parser raises whatever it meets
        exif = inner = {}
    for tag, name in EXIF.items():
        if isinstance(value := exif.get(tag), str):
            yield name, value
    if comment := user_comment(inner.get(USER_COMMENT)):
        yield "UserComment", comment
    if isinstance(note := inner.get(MAKER_NOTE), bytes) and note.startswith(OWN):
        yield "loraloom", note[len(OWN) :].decode("utf-8", "replace")
    packet = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
    packet = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet if isinstance(packet, str) else ""
    if match := DESCRIPTION.search(packet):
        yield "dc:description", html.unescape(match[1])
    if match := SOURCE_TYPE.search(packet):
        yield "DigitalSourceType", match[2]


def user_comment(value: object) -> str:
    """The text of EXIF's UserComment (EXIF 2.32, 4.6.5): eight bytes name the code. A1111 writes UNICODE, big-endian."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        little = len(text) > 1 and text[1] == 0
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\0")
    return (text if code in (b"ASCII\0\0\0", bytes(8)) else value).decode("utf-8", "replace").strip("\0")
