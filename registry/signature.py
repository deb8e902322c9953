"""Key and shape signatures that identify a family from the header of a checkpoint, an adapter or a folder.

Names are compared after the usual prefixes (model.diffusion_model., transformer., ...) are taken off. registry/detect/other_families.py has
those of families that are only detected; the file of a family that loads may have its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from registry.aliases import Aliases
from registry.detect.name_kinds import NameKinds
from registry.formats.diffusers_folder import prediction_of
from registry.formats.model_header import ModelHeader, TensorNames
from registry.formats.safetensors_header import TensorInfo
from registry.parts import Match

SMALL = 512  # a width below is of a small build, as tests have them: no published model is so narrow
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.", "transformer.", "unet.")
Shapes = Mapping[str, TensorInfo]

# modules of an adapter that several families name alike
BLOCK = r"^transformer_blocks[._]\d+[._]"
JOINT = rf"{BLOCK}attn[._](to_[qkv]|add_[qkv]_proj)$"  # the shared names of all transformers with image and text streams
TWO = rf"{BLOCK}attn1[._]to_[qkv]$"  # of those with attention to themselves and to the text
READS_TEXT = rf"{BLOCK}attn2[._]to_k$"
SINGLE = r"^single_transformer_blocks"
REFINER = r"token_refiner"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A tensor, one of its axes, and what its size means: a variant, or None for only a condition."""

    key: str
    axis: int
    means: Mapping[int, str | None]


@dataclass(frozen=True, kw_only=True)
class Width:
    """The modules a regular expression finds, and what the width of their input, or of their output, means, as for a Shape."""

    module: str
    means: Mapping[int, str | None]
    output: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Signature:
    """One family's signature: regular expressions over whole tensor names and parts of module names."""

    family: str
    aliases: Aliases = Aliases()  # of a family that is only detected; one with a file has them in its Family
    # a checkpoint: all `keys` must be there, or all of one of `other_keys`, and none of `absent`
    keys: tuple[str, ...]
    other_keys: tuple[tuple[str, ...], ...] = ()
    absent: tuple[str, ...] = ()
    needs: tuple[Shape, ...] = ()  # the size must be one of those named; a tensor that is not there is no condition
    variants: tuple[Shape, ...] = ()  # the first whose size is named gives the variant
    marks: Mapping[str, str] = field(default_factory=dict)  # key -> variant, checked before the sizes
    tasks: tuple[Shape, ...] = ()  # sizes that give the task, which is put before the variant
    task_marks: Mapping[str, str] = field(default_factory=dict)  # key -> task, checked before the sizes
    prediction: str | None = None
    pipelines: str = ""  # regular expression of the diffusers pipeline classes
    # an adapter: all expressions of one alternative must be found among its modules, none of `adapter_absent`
    adapter: tuple[tuple[str, ...], ...] = ()  # names that no other family has
    adapter_shared: tuple[tuple[str, ...], ...] = ()  # names that several have: a claim then needs one of the widths
    adapter_absent: tuple[str, ...] = ()
    adapter_widths: tuple[Width, ...] = ()  # where such a module is there, its width must be one of those named
    adapter_blocks: Mapping[str, int] = field(default_factory=dict)  # stack of blocks -> how many the largest variant has
    adapter_marks: Mapping[str, str] = field(default_factory=dict)  # expression -> variant, checked before the widths
    small_builds: bool = True  # False: a narrower adapter is another family's

    def __post_init__(self) -> None:
        asked = (*self.adapter, *self.adapter_shared, self.adapter_absent, self.adapter_marks, [w.module for w in self.adapter_widths])
        for pattern in (pattern for patterns in asked for pattern in patterns if pattern not in EXPRESSIONS):
            EXPRESSIONS[pattern] = re.compile(pattern)
            PATTERNS.forget()


EXPRESSIONS: dict[str, re.Pattern[str]] = {}  # of all signatures: each module is matched once against all of them


def _patterns_in(module: str) -> tuple[str, ...]:
    return tuple(pattern for pattern, expression in EXPRESSIONS.items() if expression.search(module))


PATTERNS = NameKinds(_patterns_in)  # module -> the expressions that find it


def bare_names(tensors: Shapes) -> dict[str, TensorInfo]:
    """The denoiser's tensors under their names without prefix; other components of a single file keep their names."""
    for prefix in PREFIXES:
        own = {name[len(prefix) :]: info for name, info in tensors.items() if name.startswith(prefix)}
        if own and len(own) * 10 >= len(tensors):
            return {**{name: info for name, info in tensors.items() if not name.startswith(prefix)}, **own}
    return dict(tensors)


# --- checkpoints


def claim_checkpoint(row: Signature, header: ModelHeader) -> Match | None:
    """A signature's claim on a single file, or on a diffusers folder by its pipeline's class."""
    return _recognise_folder(row, header) if header.is_folder else _recognise_file(row, header.cached(bare))


def bare(header: ModelHeader) -> dict[str, TensorInfo]:
    """The tensors of a single file under their bare names; to be called through `cached`."""
    return bare_names(header.tensors)


def _recognise_file(row: Signature, names: Shapes) -> Match | None:
    found = next((hits for keys in (row.keys, *row.other_keys) if (hits := _all_of(keys, names))), None)
    if found is None or any(_first(pattern, names) for pattern in row.absent):
        return None
    evidence = [f"key {name}" for name in found]
    for shape in row.needs:
        size = _size(shape, names)
        if size is not None and size not in shape.means and size >= SMALL:
            return None
        evidence += [f"{shape.key} axis {shape.axis} = {size}"] if size in shape.means else []
    variant = _word_of(row.marks, row.variants, names, evidence)
    task = _word_of(row.task_marks, row.tasks, names, evidence)
    return _match(row, min(0.99, 0.9 + 0.03 * len(evidence)), evidence, "-".join(filter(None, (task, variant))) or None)


def _word_of(marks: Mapping[str, str], shapes: Iterable[Shape], names: Shapes, evidence: list[str]) -> str | None:
    """The variant or task of the first mark, else of the first size; its reason is added to the evidence."""
    for pattern, word in marks.items():
        if (found := _first(pattern, names)) is not None:
            evidence.append(f"key {found}")
            return word
    for shape in shapes:
        size = _size(shape, names)
        if size is not None and size in shape.means:
            evidence.append(f"{shape.key} axis {shape.axis} = {size}")
            return shape.means[size]
    return None


def _recognise_folder(row: Signature, header: ModelHeader) -> Match | None:
    name = str(header.index.get("_class_name", ""))
    if not row.pipelines or not re.fullmatch(row.pipelines, name):
        return None
    inside = _recognise_file(row, header.cached(bare)) if header.tensors else None
    match = _match(row, 0.95, [f"model_index.json: {name}"], inside.variant if inside else None)
    scheduler, entry = header.configs.get("scheduler"), header.index.get("scheduler")
    if scheduler is None or not isinstance(entry, (list, tuple)) or not entry:
        return match
    prediction = prediction_of(str(entry[-1]), scheduler)
    return replace(match, prediction=prediction, prediction_source="scheduler/scheduler_config.json")


def _match(row: Signature, score: float, evidence: Iterable[str], variant: str | None) -> Match:
    source = "the family" if row.prediction else None
    return Match(score=score, evidence=tuple(evidence), variant=variant, prediction=row.prediction, prediction_source=source)


def _all_of(patterns: Iterable[str], names: Shapes) -> list[str] | None:
    found = [_first(pattern, names) for pattern in patterns]
    return [name for name in found if name is not None] if all(found) else None


def _first(pattern: str, names: Shapes) -> str | None:
    if pattern in names:
        return pattern
    if not any(mark in pattern for mark in "|*\\("):
        return None
    expression = re.compile(pattern)
    return next((name for name in names if expression.fullmatch(name)), None)


def _size(shape: Shape, names: Shapes) -> int | None:
    info = names.get(_first(shape.key, names) or "")
    if info is None or not -len(info.shape) <= shape.axis < len(info.shape):
        return None
    return info.shape[shape.axis]


# --- adapters


@dataclass(frozen=True)
class _Modules:
    """An adapter's modules of the denoiser: the first each expression finds, the highest block of each stack."""

    found: Mapping[str, str]
    patterns: frozenset[str]  # those that found one
    highest: Mapping[str, int]

    def all_of(self, patterns: Iterable[str]) -> list[str] | None:
        hits = [self.found.get(pattern) for pattern in patterns]
        return [module for module in hits if module is not None] if all(hits) else None


def _modules(names: TensorNames, _expressions: int) -> _Modules:
    found: dict[str, str] = {}
    highest: dict[str, int] = {}
    kinds = PATTERNS.of(names.modules)
    first = dict(zip(reversed(kinds), reversed(names.modules), strict=True))  # of several modules the last one put counts: the first
    for kind in dict.fromkeys(kinds):
        for pattern in kind.value:
            found.setdefault(pattern, first[kind])
    for stack, number in BLOCKS.distinct(names.modules):
        if number > highest.get(stack, -1):
            highest[stack] = number
    return _Modules(found, _same(frozenset(found)), highest)


@lru_cache(maxsize=1024)
def _same(patterns: frozenset[str]) -> frozenset[str]:
    """The one object for all equal sets: it is compared with itself then."""
    return patterns


STACK = re.compile(r"((?:[a-z]+_)*(?:blocks|layers))[._](\d+)[._]")


def _block(module: str) -> tuple[str, int]:
    found = STACK.match(module)
    return (found[1], int(found[2])) if found else ("", -1)


BLOCKS = NameKinds(_block)


@dataclass(frozen=True)
class _Named:
    """What the names of an adapter's modules show of a signature: the modules that are its, and whether no other family has such."""

    modules: tuple[str, ...]
    own: bool
    sized: tuple[tuple[Width, str], ...]  # a width that counts, and the module that has it
    marked: str | None  # the variant by a mark


def _by_names(names: TensorNames, row: Signature) -> _Named | None:
    """A signature's modules among an adapter's; None where the names alone show that it is another family's."""
    modules = names.cached(_modules, len(EXPRESSIONS))
    if not _may_have(row, modules.patterns):
        return None
    if any(number >= row.adapter_blocks.get(stack, number + 1) for stack, number in modules.highest.items()):
        return None
    own = next((hits for patterns in row.adapter if (hits := modules.all_of(patterns))), None)
    found = own or next((hits for patterns in row.adapter_shared if (hits := modules.all_of(patterns))), None)
    if found is None or any(pattern in modules.found for pattern in row.adapter_absent):
        return None
    sized = tuple((width, modules.found[width.module]) for width in row.adapter_widths if width.module in modules.found)
    marked = next((name for pattern, name in row.adapter_marks.items() if pattern in modules.found), None)
    return _Named(tuple(found), bool(own), sized, marked)


@lru_cache(maxsize=16384)
def _may_have(row: Signature, patterns: frozenset[str]) -> bool:
    """Whether modules that these expressions find can be a signature's."""
    return any(map(patterns.issuperset, (*row.adapter, *row.adapter_shared))) and patterns.isdisjoint(row.adapter_absent)


def with_names_of(rows: tuple[Signature, ...], names: TensorNames) -> tuple[Signature, ...]:
    """The signatures that the names of an adapter's modules can be of."""
    some = _possible(rows, names.cached(_modules, len(EXPRESSIONS)).patterns)
    return tuple([row for row in some if has_names_of(row, names)])


@lru_cache(maxsize=1024)
def _possible(rows: tuple[Signature, ...], patterns: frozenset[str]) -> tuple[Signature, ...]:
    return tuple(row for row in rows if _may_have(row, patterns))


def has_names_of(row: Signature, names: TensorNames) -> bool:
    """Whether the names of an adapter's modules are a signature's; the widths may be another's."""
    return names.cached(_by_names, row) is not None


def claim_adapter(row: Signature, header: ModelHeader) -> Match | None:
    """A signature's claim on an adapter by the names of its modules, the width of their inputs and the number of its blocks."""
    named = header.names.cached(_by_names, row)
    if named is None:
        return None
    evidence, variants, small = [f"module {module}" for module in named.modules], [], False
    for width, module in named.sized:
        layer = header.layer_size(module)
        size = layer.out if width.output else layer.into or layer.flat
        if size is None:
            continue
        if size not in width.means and (size >= SMALL or not row.small_builds):
            return None
        small = small or size not in width.means
        evidence.append(f"{module} {'gives' if width.output else 'takes'} {size}")
        variants.append(width.means.get(size))
    sized = len(evidence) > len(named.modules)
    if not named.own and not sized:
        return None
    score = (0.85 if named.own else 0.65) + (-0.25 if small else 0.07 if sized else 0.0)
    return _match(row, score, evidence, named.marked or next((variant for variant in variants if variant), None))
