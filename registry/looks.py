"""Telling a family by sight: the keys, shapes and names of its files as one row of data, and the claims that follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from registry.formats.adapter_keys import DENOISER
from registry.header import TensorInfo

if TYPE_CHECKING:
    from registry.families.base import Look, Match

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.", "transformer.", "unet.")
Shapes = Mapping[str, TensorInfo]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A tensor, one of its axes, and what its size means (None: only a condition)."""

    key: str
    axis: int
    means: Mapping[int, str | None]


@dataclass(frozen=True, kw_only=True)
class Known:
    """One family's looks: `keys` must all be there and `absent` none (regular expressions over whole names)."""

    family: str
    keys: tuple[str, ...]
    absent: tuple[str, ...] = ()
    needs: tuple[Shape, ...] = ()  # the size must be one of those named
    variants: tuple[Shape, ...] = ()  # the first whose size is named gives the variant
    marks: Mapping[str, str] = field(default_factory=dict)  # key -> variant, asked before the shapes
    prediction: str | None = None
    pipelines: str = ""  # regular expression of the diffusers pipeline classes
    adapter: tuple[tuple[str, ...], ...] = ()  # alternatives; every expression of one must be found in some module name
    adapter_absent: tuple[str, ...] = ()
    adapter_width: int | None = None  # of the text states an adapted cross-attention reads


def bare_names(tensors: Shapes) -> dict[str, TensorInfo]:
    """The denoiser's tensors under their names without prefix; other components of a single file keep theirs."""
    for prefix in PREFIXES:
        own = {name[len(prefix) :]: info for name, info in tensors.items() if name.startswith(prefix)}
        if own and len(own) * 10 >= len(tensors):
            return {**{name: info for name, info in tensors.items() if not name.startswith(prefix)}, **own}
    return dict(tensors)


def bare(look: Look) -> dict[str, TensorInfo]:
    """The tensors of a single file under their bare names; to be asked `once`."""
    return bare_names(look.tensors)


def claim_checkpoint(row: Known, look: Look) -> Match | None:
    """A row's claim on a diffusers folder or a single file."""
    return recognise_folder(row, look) if look.is_folder else recognise(row, look.once(bare))


def claim_adapter(row: Known, look: Look) -> Match | None:
    """A row's claim on an adapter by the names of its denoiser's modules."""
    if look.adapter_keys is None:
        return None
    modules = {key.module: None for key in look.adapter_keys.values() if key.component in (DENOISER, "")}
    return recognise_adapter(row, adapter_words(patterns_of((row,)), modules), frozenset())


def recognise(row: Known, bare: Shapes) -> Match | None:
    """A row's claim on a checkpoint's header, names already bare."""
    from registry.families.base import Match  # not at the top: importing the seam imports every family, and they import this

    evidence = []
    for pattern in row.keys:
        found = _first(pattern, bare)
        if found is None:
            return None
        evidence.append(f"key {found}")
    if any(_first(pattern, bare) for pattern in row.absent):
        return None
    for shape in row.needs:
        size = _size(shape, bare)
        if size not in shape.means:
            return None
        evidence.append(f"{shape.key} axis {shape.axis} = {size}")
    variant = next((name for key, name in row.marks.items() if key in bare), None)
    for shape in row.variants:
        size = _size(shape, bare)
        if variant is None and size is not None and size in shape.means:
            variant = shape.means[size]
            evidence.append(f"{shape.key} axis {shape.axis} = {size}")
    score = min(0.99, 0.9 + 0.03 * len(evidence))
    source = "family" if row.prediction else None
    return Match(score=score, evidence=tuple(evidence), variant=variant, prediction=row.prediction, prediction_source=source)


def recognise_adapter(row: Known, found: Mapping[str, str], widths: frozenset[int]) -> Match | None:
    """A row's claim on an adapter by what `adapter_words` found in it, or by the widths its cross-attentions read."""
    from registry.families.base import Match  # not at the top: importing the seam imports every family, and they import this

    if row.adapter_width in widths:
        return Match(score=0.9, evidence=(f"cross-attention reads {row.adapter_width} wide text states",))
    if any(pattern in found for pattern in row.adapter_absent):
        return None
    for alternative in row.adapter:
        if all(pattern in found for pattern in alternative):
            return Match(score=0.85, evidence=tuple(f"module {found[pattern]}" for pattern in alternative))
    return None


def patterns_of(rows: Iterable[Known]) -> tuple[str, ...]:
    """The expressions that these rows look for in an adapter's module names, each once."""
    return tuple({pattern: None for row in rows for part in (*row.adapter, row.adapter_absent) for pattern in part})


def adapter_words(patterns: tuple[str, ...], modules: Iterable[str]) -> dict[str, str]:
    """Those of the expressions that are found in an adapter's module names -> the first module each is found in."""
    found: dict[str, str] = {}
    for module in modules:
        for pattern in _words(patterns, module):
            found.setdefault(pattern, module)
    return found


@lru_cache(maxsize=262144)  # files of one family share their names
def _words(patterns: tuple[str, ...], module: str) -> tuple[str, ...]:
    return tuple(pattern for pattern in patterns if _compiled(pattern).search(module))


@cache  # as many as the rows have
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def recognise_folder(row: Known, look: Look) -> Match | None:
    """A row's claim on a diffusers folder by its pipeline's class."""
    from registry.families.base import Match  # not at the top: importing the seam imports every family, and they import this

    name = str(look.index.get("_class_name", ""))
    if not row.pipelines or not re.fullmatch(row.pipelines, name):
        return None
    return Match(
        score=0.95,
        evidence=(f"model_index.json: {name}",),
        prediction=row.prediction,
        prediction_source="family" if row.prediction else None,
    )


def _first(pattern: str, bare: Shapes) -> str | None:
    if pattern in bare:
        return pattern
    if not any(mark in pattern for mark in "|*\\("):
        return None
    expression = re.compile(pattern)
    return next((name for name in bare if expression.fullmatch(name)), None)


def _size(shape: Shape, bare: Shapes) -> int | None:
    info = bare.get(shape.key)
    if info is None or not -len(info.shape) <= shape.axis < len(info.shape):
        return None
    return info.shape[shape.axis]
