"""data.sets: the folders of a training set, each with its repeats, weight and trigger, checked key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from registry.typed_values import fitted
from train.settings.rules import Rule

TYPES: dict[str, Any] = {"path": str, "repeats": int, "weight": float, "trigger": str | None, "prior": bool, "masks": str | None}
MOST = 10_000  # repeats
KEYS = "{path, repeats, weight, trigger, prior, masks}"


@dataclass(frozen=True, kw_only=True)
class Subset:
    """One folder of a training set. `name` is in front of its images' names where there are several."""

    path: str
    name: str = ""
    repeats: int = 1  # how often an epoch has each image
    weight: float = 1.0  # of its images' loss
    trigger: str | None = None
    prior: bool = False  # regularisation images
    masks: str | None = None  # in place of data.masks
    word: str | None = None  # of kohya's folder name: the caption of images without one

    @property
    def prefix(self) -> str:
        """What its images' names begin with."""
        return f"{self.name}/" if self.name else ""


def set_rules(sets: Any) -> Iterator[Rule]:
    """The rules of data.sets: every fault of every entry."""
    if sets is None:
        return
    if not isinstance(sets, (list, tuple)) or not sets:
        yield "sets", sets, False, f"must be a list of {KEYS}, of which path is needed, or null"
        return
    for number, entry in enumerate(sets):
        yield from _entry(f"sets[{number}]", entry)
    entries = [entry for entry in sets if isinstance(entry, Mapping)]
    paths = [str(entry.get("path")).rstrip("/") for entry in entries]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    yield "sets", twice, not twice, "must name each path once (repeats says how often its images are used)"
    only_prior = len(entries) == len(sets) and all(entry.get("prior") is True for entry in entries)
    yield "sets", sets, not only_prior, "must have a set that is not prior: there is nothing to learn"


def _entry(where: str, entry: Any) -> Iterator[Rule]:
    if not isinstance(entry, Mapping):
        yield where, entry, False, f"must be {KEYS}"
        return
    for key in entry:
        yield f"{where}.{key}", entry[key], key in TYPES, f"is no key of a set: {KEYS}"
    yield f"{where}.path", entry.get("path"), bool(str(entry.get("path") or "").strip()), "is needed: a folder, or a set of the hub"
    for key, kind in TYPES.items():
        if key not in entry:
            continue
        try:
            value = fitted(entry[key], kind)
        except ValueError as error:
            yield f"{where}.{key}", entry[key], False, str(error).rpartition(", got ")[0]
            continue
        if key == "repeats":
            yield f"{where}.{key}", value, 1 <= value <= MOST, f"must be 1 to {MOST}"
        elif key == "weight":
            yield f"{where}.{key}", value, isfinite(value) and value > 0, "must be above 0"
        elif key in ("trigger", "masks"):
            yield f"{where}.{key}", value, value is None or bool(value.strip()), "must not be empty"


def subsets(sets: Any) -> list[Subset]:
    """The entries of data.sets, which passed set_rules, with names that differ: as few last parts of their paths as it takes."""
    filled = [{key: fitted(value, TYPES[key]) for key, value in entry.items()} for entry in sets]
    names = short_names([str(values["path"]) for values in filled])
    return [Subset(name=name, **values) for name, values in zip(names, filled, strict=True)]


def short_names(paths: list[str]) -> list[str]:
    """The last part of each path; more of its parts where others have the same."""
    parts = [[part for part in path.replace("\\", "/").split("/") if part not in ("", ".")] or [path] for path in paths]
    sizes = [1] * len(paths)
    for _ in range(max(map(len, parts))):
        names = ["/".join(part[-size:]) for part, size in zip(parts, sizes, strict=True)]
        sizes = [size + (names.count(name) > 1) for name, size in zip(names, sizes, strict=True)]
    names = ["/".join(part[-size:]) for part, size in zip(parts, sizes, strict=True)]
    return names if len(set(names)) == len(names) else [f"{number} {name}" for number, name in enumerate(names, 1)]
