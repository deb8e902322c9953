"""ControlNets as a person writes them: "NET:IMAGE:SCALE", several joined by `+`, or records {net, image, scale, ...}.

A scale is a last `:number`, as a weight is. Where a colon could part net and image in several places, the one whose right side
is a file is meant; where that leaves several or none, the text is refused: give a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infer.draw.files import ControlNet, ImageFile
from infer.draw.values import is_finite
from infer.hints.setting import read_prepare
from registry.errors import Refused
from registry.home import expanded
from registry.names import suggest
from registry.references import NONE, split_joined, split_weight

KEYS = ("net", "image", "scale", "start", "end", "mode", "prepare")
PREFIXES = ("sha256", "hf", "")  # a colon behind these parts nothing
EXAMPLE = "Write NET:IMAGE or NET:IMAGE:SCALE, canny:edges.png:0.8, or a record {net: canny, image: edges.png, scale: 0.8}."


def read_controls(value: object) -> tuple[ControlNet, ...]:
    """The ControlNets of "canny:edges.png:0.8+depth:d.png", of a record, of a list of either, of "none" or None."""
    if value is None:
        return ()
    if isinstance(value, ControlNet):
        return (value,)
    if isinstance(value, str):
        return _of_text(value.strip())
    if isinstance(value, Mapping):
        return (_of_record(value),)
    if isinstance(value, Sequence):
        return tuple(found for one in value for found in read_controls(one))
    raise Refused(f"{value!r} is no ControlNet. {EXAMPLE}")


def _of_text(text: str) -> tuple[ControlNet, ...]:
    if not text or text.lower() == NONE:
        return ()
    parts = split_joined(text)
    if not all(_ways(_scaled(part.strip())[0]) for part in parts):
        parts = [text]  # the `+` is part of a path
    return tuple(_one(part.strip(), text) for part in parts)


def _one(part: str, whole: str) -> ControlNet:
    rest, scale = _scaled(part)
    ways = _ways(rest)
    ways = [(net, image) for net, image in ways if expanded(image).is_file()] or ways
    if len(ways) != 1:
        problem = f" could be {' or '.join(f'{net} with {image}' for net, image in ways)}" if ways else " names no image"
        raise Refused(f"The ControlNet {part!r}{problem}{'' if part == whole else f' (in {whole!r})'}. {EXAMPLE}")
    ((net, image),) = ways
    return ControlNet(reference=net, picture=ImageFile(path=image), scale=scale)


def _scaled(text: str) -> tuple[str, float]:
    rest, number = split_weight(text)
    return rest, 1.0 if number is None else float(number)


def _ways(text: str) -> list[tuple[str, str]]:
    """All ways to part a text into net and image at a colon."""
    pairs = [(text[:colon].strip(), text[colon + 1 :].strip()) for colon, sign in enumerate(text) if sign == ":"]
    return [(net, image) for net, image in pairs if image and net.lower() not in PREFIXES]


def _of_record(record: Mapping[Any, Any]) -> ControlNet:
    unknown = [str(key) for key in record if key not in KEYS]
    if unknown:
        raise Refused(f"A ControlNet's record has no {', '.join(unknown)}. {suggest(unknown[0], KEYS, whole=True)}")
    if not isinstance(record.get("net"), str) or not isinstance(record.get("image"), str):
        raise Refused(f"The ControlNet's record {dict(record)} must name net and image. {EXAMPLE}")
    numbers: dict[str, Any] = {key: record[key] for key in ("scale", "start", "end") if record.get(key) is not None}
    for key, value in numbers.items():
        if not is_finite(value):
            raise Refused(f"The ControlNet's {key} is {value!r}. Expected a number.")
    mode = record.get("mode")
    if mode is not None and type(mode) is not int:
        raise Refused(f"The ControlNet's mode is {mode!r}. Expected the number of a union net's hint kind, from 0.")
    return ControlNet(
        reference=record["net"],
        picture=ImageFile(path=record["image"]),
        mode=mode,
        prepare=read_prepare(record.get("prepare")),
        **numbers,
    )


def control_faults(one: ControlNet, *, modes: int | None) -> list[str]:
    """What is wrong with a ControlNet's numbers; `modes` is how many hint kinds a union net has, None where the net was not found."""
    name, faults = f"The ControlNet {one.reference}", []
    if not abs(one.scale) < 100:
        faults.append(f"{name} has scale {one.scale}. Expected a number such as 0.8; 1 is as trained.")
    if not 0.0 <= one.start < one.end <= 1.0:
        faults.append(f"{name} has start {one.start:g} and end {one.end:g}. Expected shares of the steps, 0 <= start < end <= 1.")
    if modes and (one.mode is None or not 0 <= one.mode < modes):
        given = "no mode" if one.mode is None else f"mode {one.mode}"
        faults.append(f"{name} is a union net and is given {given}. Expected mode 0 to {modes - 1}: its card numbers the kinds.")
    if modes == 0 and one.mode is not None:
        faults.append(f"{name} is given mode {one.mode}, but it is no union net: it takes no mode. Leave it out.")
    return faults
