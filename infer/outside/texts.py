"""What an image from elsewhere carries: the texts of its metadata, and the prompt and seed that they state.

Read are A1111's `parameters` (also in EXIF's UserComment), SwarmUI's and Fooocus' JSON under the same name, InvokeAI's and NovelAI's JSON,
Midjourney's Description, EXIF's ImageDescription, XMP's dc:description, and our own Render. A ComfyUI graph states no single prompt.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.formats.image_file import Unreadable, reason_of
from registry.plain_values import from_json

LONGEST, MOST = 4000, 40  # characters of a text that are kept, texts of an image
EXIF = {0x010E: "ImageDescription", 0x0131: "Software", 0x013B: "Artist", 0x8298: "Copyright"}
USER_COMMENT, EXIF_IFD = 0x9286, 0x8769
DESCRIPTION = re.compile(r"<dc:description>.*?<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL)
SOURCE_TYPE = re.compile(r"DigitalSourceType[^>]{0,80}?[\"'>]([^\"'<>]{1,200}/([A-Za-z]+))[\"'<]")
A1111_END = re.compile(r"\n(?:Negative prompt: |Steps: \d)")
A1111_SEED = re.compile(r"(?:^|[,\n] ?)Seed: (\d{1,20})(?:,|$)", re.MULTILINE)
MIDJOURNEY_TAIL = re.compile(r"\s+(?:--[a-z]+\b.*|Job ID: .*)$", re.DOTALL)


@dataclass(frozen=True)
class Stated:
    """A prompt that a source states, and the seed where it states one."""

    prompt: str
    seed: int | None = None


def read_texts(data: bytes) -> dict[str, str]:
    """Name -> text of an image's metadata, at most MOST of LONGEST characters. Raises Unreadable for what is no image."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()  # text chunks may come after the pixels
                found = dict(_texts(opened))
    except Exception as error:  # PIL's plug-ins raise whatever their formats raise
        raise Unreadable(f"it cannot be decoded ({reason_of(error)})") from error
    if b"c2pa" in data and (b"jumb" in data or b"caBX" in data):
        found["C2PA"] = "a manifest is there (not verified)"
    cut = {name: text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for name, text in found.items() if text.strip()}
    return dict(list(cut.items())[:MOST])


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
    if comment := _user_comment(inner.get(USER_COMMENT)):
        yield "UserComment", comment
    packet = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
    packet = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet if isinstance(packet, str) else ""
    if match := DESCRIPTION.search(packet):
        yield "dc:description", html.unescape(match[1])
    if match := SOURCE_TYPE.search(packet):
        yield "DigitalSourceType", match[2]


def _user_comment(value: object) -> str:
    """EXIF 2.32, 4.6.5: eight bytes name the code. A1111 writes UNICODE, big-endian."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        little = len(text) > 1 and text[1] == 0
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\0")
    return (text if code in (b"ASCII\0\0\0", bytes(8)) else value).decode("utf-8", "replace").strip("\0")


def stated(texts: Mapping[str, str]) -> Iterator[tuple[str, Stated]]:
    """(name of the text, what it states) of every text that holds a prompt."""
    for name in ("loraloom", "parameters", "UserComment", "comment", "invokeai_metadata", "Comment"):
        if name in texts and (found := _read(texts[name], a1111=name in ("parameters", "UserComment", "comment"))):
            yield name, found
    for name in ("Description", "ImageDescription", "dc:description"):
        if text := MIDJOURNEY_TAIL.sub("", texts.get(name, "")).strip():
            yield name, Stated(text)


def _read(text: str, *, a1111: bool) -> Stated | None:
    if text.lstrip().startswith("{"):
        return _of_json(text)
    end = A1111_END.search(text)
    if not a1111 or end is None:
        return None
    seed = A1111_SEED.search(text, end.start())
    return Stated(text[: end.start()].strip(), int(seed[1]) if seed else None)


def _of_json(text: str) -> Stated | None:
    """The prompt of an object, or of the object inside it that other programs keep theirs in."""
    try:
        value = from_json(text)
    except ValueError:
        return None
    for key in ("render", "sui_image_params"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict):
        return None
    prompt = next((value[key] for key in ("prompt", "positive_prompt") if isinstance(value.get(key), str)), None)
    seed = value.get("seed")
    return None if prompt is None else Stated(prompt.strip(), seed if type(seed) is int and seed >= 0 else None)
