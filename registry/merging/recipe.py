"""Merge recipes: YAML <-> Recipe. A recipe has everything that the result depends on, sources by hash."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from registry.errors import Faults, Refused
from registry.formats.safetensors_header import open_regular
from registry.names import suggest
from registry.plain_values import from_yaml

DTYPES = {
    "fp32": "F32",
    "fp16": "F16",
    "bf16": "BF16",
    "fp8_e4m3": "F8_E4M3",
    "fp8_e5m2": "F8_E5M2",
    "fp64": "F64",
}
LIMIT = 1 << 20  # bytes of a recipe file


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source: the user's reference; when pinned also its registered name and sha256."""

    ref: str
    name: str | None = None
    sha256: str | None = None

    def to_plain(self) -> dict[str, Any]:
        return {key: value for key, value in (("ref", self.ref), ("name", self.name), ("sha256", self.sha256)) if value is not None}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """For keys in which the regular expression is found: other options, a copy of source number `take` (from 1), or neither with `drop`."""

    match: str
    options: Mapping[str, Any] = field(default_factory=dict)
    take: int | None = None
    drop: bool = False
    optional: bool = False  # may match nothing: leftovers that only some files have

    def to_plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"match": self.match, **self.options}
        if self.take is not None:
            plain["take"] = self.take
        if self.drop:
            plain["drop"] = True
        if self.optional:
            plain["optional"] = True
        return plain


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines the bytes of a merge. Memory and threads do not, so they are not part of it."""

    method: str
    sources: tuple[Source, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    weights: Any = None  # a value for each block: a preset's name, a list, {gradient: [...]}
    rules: tuple[Rule, ...] = ()
    components: tuple[str, ...] | None = None  # merged; the others are copied from the first source. None: all
    dtype: str | None = None  # None: that of the first source, tensor by tensor
    precision: str = "fp32"  # of the arithmetic
    missing: str = "refuse"  # keys that only some sources have: refuse | first (the first source's are copied, others left out)
    mismatch: str = "refuse"  # tensors of different shapes: refuse | first (copied) | overlap (what they share is merged)
    mixed_prediction: bool = False  # allow sources of different prediction types
    shard_mib: int | None = (
        None  # None: files as in the first source; 0: one file a component; else shards of at most this size, in a folder
    )
    name: str | None = None

    def to_plain(self) -> dict[str, Any]:
        """Plain values, defaults left out, in the order of the fields."""
        plain: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("sources", "rules"):
                value = [one.to_plain() for one in value]
            if item.name in ("method", "sources") or value != _default(item):
                plain[item.name] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
        return plain

    def to_yaml(self) -> str:
        """The recipe as a file that `loraloom merge recipe=FILE` reads."""
        return str(yaml.safe_dump(_listed(self.to_plain()), sort_keys=False, allow_unicode=True, width=140))


def _default(item: Any) -> Any:
    empty: dict[str, Any] = {"params": {}, "rules": []}
    return empty.get(item.name, item.default)


def _listed(value: Any) -> Any:
    """Tuples as lists, all the way down, for YAML and JSON."""
    if isinstance(value, Mapping):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def read_recipe(path: Path | str) -> Recipe:
    """The recipe in a YAML file. Raises BadFile, Faults."""
    path = Path(path)
    with open_regular(path) as file:
        raw = file.read(LIMIT + 1)
    if len(raw) > LIMIT:
        raise Refused(f"{path} is longer than a recipe may be ({LIMIT:,} bytes). Name a YAML file.")
    try:
        plain = from_yaml(raw.decode("utf-8"))
    except ValueError as error:
        raise Refused(f"{path} is not YAML ({error}). Expected method:, sources: and the other settings of a recipe.") from error
    return recipe_of(plain, where=str(path))


def recipe_of(plain: Any, *, where: str = "The recipe") -> Recipe:
    """The Recipe of plain values. Raises Faults with all unknown and malformed entries."""
    if not isinstance(plain, Mapping):
        what = "empty" if plain is None else type(plain).__name__
        raise Refused(f"{where} is {what}; expected method:, sources: and the other settings of a recipe.")
    known = {item.name for item in fields(Recipe)}
    faults = [f"there is no setting {key!r} in a recipe. {suggest(str(key), known)}" for key in plain if key not in known]
    faults += [f"{key} must be given{REQUIRED[key]()}." for key in REQUIRED if plain.get(key) in (None, [], "")]
    values = {key: value for key, value in plain.items() if key in known and value is not None}
    readers = {"sources": _sources, "rules": _rules, "components": _words, "params": _params}
    for key, read in readers.items():
        if key in values:
            try:
                values[key] = read(values[key])
            except ValueError as error:
                faults.append(str(error))
                values.pop(key)
    faults += _form_faults(values)
    if faults:
        raise Faults(f"{where} is refused:", faults)
    return Recipe(**values)


def _methods() -> str:
    from registry.merging import methods  # fills the table; not at the top: a method's module needs this one's siblings

    return f": {', '.join(methods.METHODS)}"


REQUIRED: Mapping[str, Callable[[], str]] = {"method": _methods, "sources": lambda: ": sources=[one,other], by name or path"}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": ("fp32", "fp64"),
    "missing": ("refuse", "first"),
    "mismatch": ("refuse", "first", "overlap"),
    "dtype": tuple(DTYPES),
}


def _form_faults(values: Mapping[str, Any]) -> list[str]:
    faults = [
        f"{key} must be {' or '.join(choices)}, got {values[key]!r}."
        for key, choices in CHOICES.items()
        if key in values and values[key] not in choices
    ]
    faults += [
        f"{key} must be a text, got {values[key]!r}." for key in ("method", "name") if key in values and not isinstance(values[key], str)
    ]
    if not isinstance(values.get("mixed_prediction", False), bool):
        faults.append(f"mixed_prediction must be true or false, got {values['mixed_prediction']!r}.")
    shard = values.get("shard_mib", 0)
    if isinstance(shard, bool) or not isinstance(shard, int) or shard < 0:
        faults.append(f"shard_mib must be a whole number of at least 0, got {shard!r}.")
    return faults


def _sources(value: Any) -> tuple[Source, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_source(item, number) for number, item in enumerate(items, 1))


def _source(item: Any, number: int) -> Source:
    if isinstance(item, Source):
        return item
    if isinstance(item, str) and item.strip():
        return Source(ref=item.strip())
    known = isinstance(item, Mapping) and "ref" in item and set(item) <= {"ref", "name", "sha256"}
    if known and all(isinstance(value, str) for value in item.values()):
        return Source(**item)
    raise ValueError(f"source {number} must be a reference, or {{ref: ..., sha256: ...}} in quotes, got {item!r}.")


def _rules(value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"rules must be a list of {{match: REGEX, alpha: 0.3}}, got {value!r}.")
    return tuple(_rule(item, number) for number, item in enumerate(value, 1))


def _rule(item: Any, number: int) -> Rule:
    if isinstance(item, Rule):
        return item
    if not isinstance(item, Mapping) or not isinstance(item.get("match"), str):
        raise ValueError(f"rule {number} must be {{match: REGEX, OPTION: VALUE}}, got {item!r}.")
    try:
        re.compile(item["match"])
    except re.error as error:
        raise ValueError(f"rule {number}: {item['match']!r} is not a regular expression ({error}).") from error
    take, drop = item.get("take"), item.get("drop", False)
    if take is not None and (isinstance(take, bool) or not isinstance(take, int) or take < 1):
        raise ValueError(f"rule {number}: take must be the number of a source, counted from 1, got {take!r}.")
    for word in ("drop", "optional"):
        if not isinstance(item.get(word, False), bool):
            raise ValueError(f"rule {number}: {word} must be true or false, got {item[word]!r}.")
    options = {key: value for key, value in item.items() if key not in ("match", "take", "drop", "optional")}
    if (take is not None) + drop + bool(options) != 1:
        raise ValueError(
            f"rule {number} ({item['match']}) must have one of: options such as alpha, or take: a source's number, or drop: true."
        )
    return Rule(match=item["match"], options=options, take=take, drop=drop, optional=item.get("optional", False))


def _words(value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"components must be a list of names such as [denoiser, vae], got {value!r}.")
    return tuple("denoiser" if item in ("unet", "transformer") else item for item in items)


def _params(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"params must be options by name, {{alpha: 0.3}}, got {value!r}.")
    return {str(key): tuple(inner) if isinstance(inner, list) else inner for key, inner in value.items()}
