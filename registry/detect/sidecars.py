"""Sidecar files of other tools: Civitai's .civitai.info, A1111's .json and .txt, preview images. Read, never written."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from registry.aliases import family_named
from registry.detect.aliases import all_aliases
from registry.detect.header_metadata import MetadataFacts
from registry.errors import BadFile
from registry.formats.model_folder import read_json

PREVIEWS = (".preview.png", ".preview.jpg", ".preview.jpeg", ".preview.webp", ".png", ".jpg", ".jpeg", ".webp")
ENDINGS = (".civitai.info", ".json", ".txt", *PREVIEWS)
TEXT_AT_MOST = 2000  # characters of a description the index keeps
TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True)
class Sidecars:
    """Facts of a model file's sidecars; `kept` goes into its metadata."""

    family: str | None = None
    family_source: str | None = None
    triggers: tuple[str, ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None


def sidecars_of(path: Path, *, beside: Collection[str] | None = None) -> Sidecars:
    """The facts in the files beside a model; damaged and foreign ones are skipped. `beside`: the names there, if they are at hand."""
    folder, stem = path.parent, path.stem

    def there(name: str) -> bool:
        return (beside is None or name in beside) and (folder / name).is_file()

    if beside is not None and not any(f"{stem}{ending}" in beside for ending in ENDINGS):
        return Sidecars()
    found = Sidecars()
    for name, read in ((f"{stem}.civitai.info", _civitai), (f"{stem}.json", _a1111)):
        if there(name):
            found = _joined(found, read(_object(folder / name), name))
    text = f"{stem}.txt"
    if "sidecar.description" not in found.kept and there(text):
        found = _joined(found, Sidecars(kept=_described(_text(folder / text))))
    preview = next((stem + ending for ending in PREVIEWS if there(stem + ending)), None)
    return _joined(found, Sidecars(kept={"sidecar.preview": str(folder / preview)})) if preview else found


def with_sidecars(facts: MetadataFacts, path: Path, *, beside: Collection[str] | None = None) -> MetadataFacts:
    """The facts of a header and of the file's sidecars; the header's come first."""
    found = sidecars_of(path, beside=beside)
    if found == Sidecars():
        return facts
    return replace(
        facts,
        family=facts.family or found.family,
        family_source=facts.family_source or found.family_source,
        triggers=facts.triggers or found.triggers,
        licence=facts.licence or found.licence,
        kept={**facts.kept, **found.kept},
    )


def _civitai(values: Mapping[str, Any], name: str) -> Sidecars:
    model = values.get("model") if isinstance(values.get("model"), dict) else {}
    title = " ".join(str(part) for part in (model.get("name") if model else None, values.get("name")) if part)
    kept = {"sidecar.title": title} if title else {}
    if isinstance(values.get("modelId"), int):
        kept["sidecar.source"] = f"https://civitai.com/models/{values['modelId']}"
    words = values.get("trainedWords")
    triggers = [word for text in words if isinstance(text, str) for word in _words(text)] if isinstance(words, list) else []
    family, source = _family(values.get("baseModel"), f"{name} baseModel")
    licence = _permissions(model or {})
    return Sidecars(family, source, tuple(dict.fromkeys(triggers)), {**kept, **_described(values.get("description"))}, licence)


def _permissions(model: Mapping[str, Any]) -> str | None:
    """What Civitai's switches forbid, in words that licences.strictness reads; None where they forbid nothing, or are not there."""
    uses = model.get("allowCommercialUse")
    closed = [
        word
        for word, found in (("non-commercial", uses in ("None", [], ["None"])), ("no derivatives", model.get("allowDerivatives") is False))
        if found
    ]
    return f"Civitai: {', '.join(closed)}" if closed else None


def _a1111(values: Mapping[str, Any], name: str) -> Sidecars:
    if not {"activation text", "sd version", "preferred weight", "negative text"} & set(values):
        return Sidecars()  # a JSON of something else
    kept: dict[str, Any] = _described(values.get("description") or values.get("notes"))
    if isinstance(values.get("preferred weight"), int | float) and values["preferred weight"]:
        kept["sidecar.preferred_weight"] = values["preferred weight"]
    family, source = _family(values.get("sd version"), f"{name} sd version")
    return Sidecars(family, source, tuple(_words(values.get("activation text"))), kept)


def _family(value: object, source: str) -> tuple[str | None, str | None]:
    text = value if isinstance(value, str) else ""
    family = family_named(text, lambda aliases: aliases.civitai, all_aliases())
    return (family, f"{source} {value!r}") if family else (None, None)


def _words(text: object) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if isinstance(text, str) else []


def _described(text: object) -> dict[str, Any]:
    plain = TAG.sub(" ", text).strip() if isinstance(text, str) else ""
    return {"sidecar.description": plain[:TEXT_AT_MOST]} if plain else {}


def _object(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path)
    except BadFile:
        return {}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(4 * TEXT_AT_MOST).decode("utf-8", "replace")
    except OSError:
        return ""


def _joined(first: Sidecars, second: Sidecars) -> Sidecars:
    return Sidecars(
        first.family or second.family,
        first.family_source or second.family_source,
        first.triggers or second.triggers,
        {**second.kept, **first.kept},
        first.licence or second.licence,
    )


__all__ = ["Sidecars", "sidecars_of", "with_sidecars"]
