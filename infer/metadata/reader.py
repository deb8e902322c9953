"""The reader of an image's metadata: bounded, and with one clear error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infer.metadata.programs import PROGRAMS
from infer.metadata.result import ImageMetadata
from infer.metadata.texts import image_texts
from registry.errors import BadFile
from registry.formats.image_file import Unreadable
from registry.formats.safetensors_header import open_regular
from registry.printable import one_line, some

LARGEST = 1 << 28  # bytes of an image


def read_metadata(path: Path) -> ImageMetadata:
    """What the image at `path` says of how it was made. Raises BadFile for what is no image, or says nothing that can be read."""
    with open_regular(path) as file:
        try:
            data = file.read(LARGEST + 1)
        except OSError as error:
            raise BadFile(path, "unreadable", f"cannot be read ({error.strerror}).") from error
    return metadata_in(data, path)


def metadata_in(data: bytes, path: Path | str) -> ImageMetadata:
    """The same of the bytes of an image; `path` is named where they are refused."""
    if len(data) > LARGEST:
        raise BadFile(path, "unreadable", f"has more than {LARGEST:,} bytes: it is not read as an image.")
    try:
        texts = image_texts(data)
    except Unreadable as error:
        raise BadFile(path, "not-an-image", f"is no image that can be read: {error}.") from error
    found = metadata_of(texts)
    if found is None:
        there = f"It has {some(map(one_line, texts), 6)}, of which none says how it was made." if texts else "It has no text at all."
        raise BadFile(
            path,
            "no-metadata",
            f"says nothing of how it was made. {there} Expected an image as {', '.join(PROGRAMS)} saved it: editors, chats and many sites"
            " take the metadata away.",
        )
    return found


def metadata_of(texts: Mapping[str, str]) -> ImageMetadata | None:
    """What the texts of an image say, by the first program that reads them; None where none does."""
    return next((found for read in PROGRAMS.values() if (found := read(texts)) is not None), None)
