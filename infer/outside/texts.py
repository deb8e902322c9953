"""What an image from elsewhere carries: the texts of its metadata, and the prompt and seed that they state.

The programs are those of infer/metadata; beside them Midjourney's Description, EXIF's ImageDescription and XMP's dc:description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from infer.metadata.programs import json_of
from infer.metadata.reader import metadata_of
from infer.metadata.texts import image_texts

LONGEST = 4000  # characters of a text that are shown
MIDJOURNEY_TAIL = re.compile(r"\s+(?:--[a-z]+\b.*|Job ID: .*)$", re.DOTALL)


@dataclass(frozen=True)
class Stated:
    """A prompt that a source states, and the seed where it states one."""

    prompt: str
    seed: int | None = None


def read_stated(data: bytes) -> tuple[dict[str, str], dict[str, Stated]]:
    """(name -> text of an image's metadata, name -> what it states). Raises Unreadable for what is no image."""
    texts = image_texts(data)
    shown = {name: text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for name, text in texts.items()}
    return shown, dict(stated(texts))


def stated(texts: Mapping[str, str]) -> Iterator[tuple[str, Stated]]:
    """(name of the text, what it states) of every text that holds a prompt."""
    found = metadata_of(texts)
    if found is not None and found.prompt is not None:
        seed = found.seed if found.seed is not None and found.seed >= 0 else None
        yield found.source, Stated((found.typed or found.prompt).strip(), seed)
        if found.typed is not None and found.typed.strip() != found.prompt.strip():
            yield f"{found.source}, without marks", Stated(found.prompt.strip(), seed)
    for name in ("Description", "ImageDescription", "dc:description"):
        text = MIDJOURNEY_TAIL.sub("", texts.get(name, "")).strip()
        if text and json_of(text) is None and (found is None or found.source != name):
            yield name, Stated(text)
