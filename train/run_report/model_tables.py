"""What embedding models measured of a judgement, as tables for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.typed_values import is_of

NUMBER = float | None
INTERVAL = {"value": float, "low": NUMBER, "high": NUMBER}
MODEL = {"path": str, "kind": str, "name": str, "input": str, "output": str, "width": int, "sha256": str}
LIKENESS = {"base": dict[str, NUMBER], "among_heldout": float, "heldout_nearest": NUMBER, "checkpoints": list[dict[str, Any]]}
MEASURES = ("matching", "heldout", "nearest")
LIKENESS_COLUMNS = (
    "step",
    "own held-out image",
    "against the base",
    "all held-out images",
    "against the base",
    "nearest training image",
    "against the base",
    "copies",
)
FACE = {"step": int, "faces": int}
FACES = {"images": int, "among_set": float, "set": int, "sentence": str, "checkpoints": list[dict[str, Any]]}
FACE_COLUMNS = ("step", "images with a face", "likeness to the set's faces", "against the base")
FOLLOWING_COLUMNS = ("step", "held-out prompts", "against the base", "cosine", "generic prompts", "against the base", "cosine")


@dataclass(frozen=True)
class ModelTable:
    """What one embedding model measured."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def is_measured(value: Mapping[str, Any]) -> bool:
    """Whether the parts that models measured are sound; a judgement without models has none."""
    found, prompts = value.get("embeddings", []), value.get("prompt_following")
    if not isinstance(found, list) or not all(_is_likeness(one) for one in found):
        return False
    if value.get("faces") is not None and not _is_faces(value["faces"]):
        return False
    return prompts is None or (
        isinstance(prompts, Mapping)
        and _has(prompts.get("model"), MODEL)
        and all(isinstance(prompts.get(part), list) and all(map(_is_following, prompts[part])) for part in ("heldout", "generic"))
    )


def _is_faces(value: Any) -> bool:
    return (
        _has(value, FACES)
        and all(_has(value.get(name), MODEL) for name in ("model", "detector"))
        and all(_has(row, FACE) for row in value["checkpoints"])
        and all(
            row.get(name) is None or _is_span(row[name]) for row in value["checkpoints"] for name in ("similarity", "similarity_to_base")
        )
    )


def _is_likeness(value: Any) -> bool:
    return (
        _has(value, LIKENESS)
        and _has(value.get("model"), MODEL)
        and all(name in value["base"] for name in MEASURES)
        and all(_has(row, {"step": int, "copies": int, "copying": bool}) for row in value["checkpoints"])
        and all(_is_span(span) for row in value["checkpoints"] for span in _spans(row))
    )


def _spans(row: Mapping[str, Any]) -> list[Any]:
    """Those of the nearest training image are null where there is none."""
    found = {f"{name}{end}": row.get(f"{name}{end}") for name in MEASURES for end in ("", "_to_base")}
    return [span for name, span in found.items() if span is not None or not name.startswith("nearest")]


def _is_following(row: Any) -> bool:
    if not _has(row, {"step": int, "cosine": float}) or not _is_span(row.get("value")):
        return False
    return row.get("to_base") is None or _is_span(row["to_base"])


def _is_span(value: Any) -> bool:
    return _has(value, INTERVAL)


def _has(value: Any, types: Mapping[str, Any]) -> bool:
    return isinstance(value, Mapping) and all(is_of(value.get(name), kind) for name, kind in types.items())


def model_tables(value: Mapping[str, Any]) -> Iterator[ModelTable]:
    """Of judgement.json: a table for each embedding model, one for the model that reads prompts, and one for faces."""
    for found in value.get("embeddings", []):
        yield _likeness_table(found, value["images"])
    if prompts := value.get("prompt_following"):
        yield _following_table(prompts)
    if faces := value.get("faces"):
        yield _face_table(faces)


def _likeness_table(found: Mapping[str, Any], images: int) -> ModelTable:
    base = found["base"]
    rows = [["base", _cosine(base["matching"]), "", _cosine(base["heldout"]), "", _cosine(base["nearest"]), "", ""]]
    for row in found["checkpoints"]:
        spans = [text for name in MEASURES for text in (_cosines(row.get(name), ".3f"), _cosines(row.get(f"{name}_to_base"), "+.3f"))]
        rows.append([str(row["step"]), *spans, f"{row['copies']} of {images}{', copying' if row['copying'] else ''}"])
    rows.append(["held-out images", "", "", _cosine(found["among_heldout"]), "", _cosine(found["heldout_nearest"]), "", ""])
    return ModelTable(f"likeness by {_title(found['model'])}", _words(found["model"]), LIKENESS_COLUMNS, rows)


def _following_table(prompts: Mapping[str, Any]) -> ModelTable:
    others = {row["step"]: row for row in prompts["generic"]}
    rows = [[str(row["step"] or "base"), *_followed(row), *_followed(others.get(row["step"]))] for row in prompts["heldout"]]
    return ModelTable(f"prompts followed, by {_title(prompts['model'])}", _words(prompts["model"]), FOLLOWING_COLUMNS, rows)


def _face_table(found: Mapping[str, Any]) -> ModelTable:
    rows = []
    for row in found["checkpoints"]:
        spans = [_cosines(row.get("similarity"), ".3f"), _cosines(row.get("similarity_to_base"), "+.3f")]
        rows.append([str(row["step"] or "base"), f"{row['faces'] or 'none'} of {found['images']}", *spans])
    rows.append(["the set", str(found["set"]), _cosine(found["among_set"]), ""])
    about = f"{_words(found['model'])}; faces found by {_title(found['detector'])}. {found['sentence'].capitalize()}"
    return ModelTable(f"faces by {_title(found['model'])}", about, FACE_COLUMNS, rows)


def _followed(row: Mapping[str, Any] | None) -> list[str]:
    return ["", "", ""] if row is None else [_cosines(row["value"], "+.3f"), _cosines(row["to_base"], "+.3f"), _cosine(row["cosine"])]


def _title(model: Mapping[str, Any]) -> str:
    return f"{model['name']} of {model['path']}"


def _words(model: Mapping[str, Any]) -> str:
    return f"{model['kind']}; {model['input']}; {model['output']}, {model['width']} numbers; sha256 {model['sha256']}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cosines(interval: Mapping[str, Any] | None, form: str) -> str:
    if interval is None:
        return ""
    low, high = interval["low"], interval["high"]
    ends = "cannot tell" if low is None or high is None else f"{low:{form}} to {high:{form}}"
    return f"{interval['value']:{form}} ({ends})"
