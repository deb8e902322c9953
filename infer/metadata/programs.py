"""The programs whose metadata is read, in the order in which an image's texts are tried. A program is one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from infer.metadata import a1111, fooocus, invoke, novelai, other, swarm
from infer.metadata.comfy import read as comfy
from infer.metadata.own import read_own
from infer.metadata.result import ImageMetadata
from infer.metadata.texts import HIDDEN
from registry.names import Table
from registry.plain_values import from_json

LARGEST_JSON = 4 << 20  # characters
COMMENTS = ("UserComment", "comment", "Comment", "ImageDescription", "Description")  # where formats without text chunks keep a text

Texts = Mapping[str, str]
PROGRAMS: Table[Callable[[Texts], ImageMetadata | None]] = Table("program")


def json_of(text: str) -> object:
    """The value of a JSON text; None of another text, and of one that is too large."""
    if len(text) > LARGEST_JSON or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return from_json(text)
    except ValueError:
        return None


@PROGRAMS.add("LoRA Loom")
def _own(texts: Texts) -> ImageMetadata | None:
    return read_own(texts["loraloom"]) if "loraloom" in texts else None


@PROGRAMS.add("SwarmUI")
def _swarm(texts: Texts) -> ImageMetadata | None:
    return _first(texts, ("parameters", *COMMENTS), swarm.read)


@PROGRAMS.add("InvokeAI")
def _invoke(texts: Texts) -> ImageMetadata | None:
    return _first(texts, ("invokeai_metadata",), invoke.read) or _first(texts, ("sd-metadata",), invoke.read_older)


@PROGRAMS.add("Fooocus")
def _fooocus(texts: Texts) -> ImageMetadata | None:
    return _first(texts, ("parameters", *COMMENTS), fooocus.read)


@PROGRAMS.add("NovelAI")
def _novelai(texts: Texts) -> ImageMetadata | None:
    """Its Comment; hidden in the pixels, all its texts in one object."""
    whole = json_of(texts.get(HIDDEN, ""))
    beside = {**texts, **{str(name): text for name, text in whole.items() if isinstance(text, str)}} if isinstance(whole, dict) else texts
    return _first(beside, COMMENTS, lambda value, source: novelai.read(value, beside, source=source))


@PROGRAMS.add("ComfyUI")
def _comfy(texts: Texts) -> ImageMetadata | None:
    """PNG's `prompt`, else `workflow`; in WebP the EXIF tags Model and Make, which begin with these words."""
    for name in ("prompt", "workflow"):
        behind = [texts[tag].removeprefix(f"{name}:") for tag in ("Model", "Make") if texts.get(tag, "").startswith(f"{name}:")]
        for text in [*([texts[name]] if name in texts else []), *behind]:
            if (found := comfy.read(json_of(text), source=name)) is not None:
                return found
    return None


@PROGRAMS.add("A1111")
def _a1111(texts: Texts) -> ImageMetadata | None:
    for name in ("parameters", *COMMENTS, HIDDEN):
        if name in texts and texts[name].lstrip()[:1] != "{" and (found := a1111.read(texts[name], source=name)) is not None:
            return found
    return None


@PROGRAMS.add("another program")
def _other(texts: Texts) -> ImageMetadata | None:
    return _first(texts, ("parameters", *COMMENTS), other.read)


def _first(texts: Texts, names: Sequence[str], read: Callable[..., ImageMetadata | None]) -> ImageMetadata | None:
    """What is read of the first of these texts that is JSON of the program."""
    values = ((name, json_of(texts[name])) for name in names if name in texts)
    return next((found for name, value in values if (found := read(value, source=name)) is not None), None)
