"""What happens to each key of a merge: merged with these options, copied from this source, or left out, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.formats.safetensors_header import TensorInfo
from registry.formats.single_file import UNUSED
from registry.merging.blocks import block_names, block_weights, blocks_in_order, with_base
from registry.merging.harmless import HARMLESS, POSITION_IDS, copied_from_later, difference_notes, whole_positions
from registry.merging.method import Method
from registry.merging.recipe import DTYPES, Recipe, Rule
from registry.printable import counted, some
from registry.tensors.layout import FLOATS, Layout, Stored

INTEGERS = ("I64", "I32", "I16", "I8", "U8")
SHOWN = 3  # keys named in a fault


@dataclass(frozen=True, kw_only=True)
class Key:
    """One tensor of the result. A merged one has its `sources` in order and its options; a copied one has one source and the reason."""

    name: str
    out: TensorInfo
    sources: tuple[Stored, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    copied: str | None = None  # integer, empty, component, rule, only the first source has it, shape
    shared: tuple[int, ...] | None = None  # the leading part of the shape that is merged, where shapes differ

    @property
    def merged(self) -> bool:
        return self.copied is None


@dataclass(kw_only=True)
class Keys:
    """All keys of a merge, faults, and notes."""

    keys: dict[str, Key] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)  # left out by a rule
    extra: list[str] = field(default_factory=list)  # in a later source only, and left out
    lacking: dict[int, list[str]] = field(default_factory=dict)  # source -> keys of the first that it should have and has not
    beyond: dict[int, list[str]] = field(default_factory=dict)  # source -> keys that the first has not
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)  # keys that each rule decides
    weights: Mapping[str, float] = field(default_factory=dict)  # block -> alpha

    def reasons(self) -> dict[str, int]:
        """Why keys are copied -> how many."""
        found: dict[str, int] = {}
        for key in self.keys.values():
            if key.copied:
                found[key.copied] = found.get(key.copied, 0) + 1
        return found

    def counts(self) -> dict[str, int]:
        """{merged, copied, skipped}."""
        merged = sum(key.merged for key in self.keys.values())
        return {"merged": merged, "copied": len(self.keys) - merged, "skipped": len(self.dropped) + len(self.extra)}


def plan_keys(recipe: Recipe, method: Method, layouts: Sequence[Layout]) -> Keys:
    """What happens to each key, from headers alone."""
    found = Keys()
    options = _Options(recipe, method, layouts[0], found)
    names = list(layouts[0].tensors)
    _check_components(recipe, layouts[0], found)
    incomplete = set[str]() if method.copies else _compare(recipe, layouts, found)
    differing: list[str] = []
    absent: dict[int, list[str]] = {}
    unmergeable: list[str] = []
    found.keys |= _from_later(recipe, method, layouts, options)
    for name in [*names, *options.taken_extra(layouts)]:
        rule = options.rule(name)
        if rule is not None and rule.drop:
            found.dropped.append(name)
            continue
        if rule is not None and rule.take is not None and rule.take <= len(layouts) and name not in layouts[rule.take - 1].tensors:
            absent.setdefault(rule.take, []).append(name)
            continue
        key = _key(name, rule, recipe, method, layouts, options, incomplete)
        if isinstance(key, str):
            unmergeable.append(key)
        else:
            found.keys[name] = key
            if key.copied == "shape":
                differing.append(name)
    found.extra = [name for name in found.extra if name not in found.keys]
    found.faults += unmergeable[:SHOWN]
    if len(unmergeable) > SHOWN:
        found.faults.append(f"{counted(len(unmergeable) - SHOWN, 'more tensor has', 'more tensors have')} such faults.")
    found.faults += [f"a rule takes {some(names)} from source {take}, which has no such key." for take, names in absent.items()]
    found.notes += [] if method.copies else _position_notes(found)
    if differing:
        found.notes.append(f"copied from the first source, since the shapes differ: {counted(len(differing), 'tensor')}: {some(differing)}")
    found.faults += options.unused()
    found.hits, found.weights = options.hits, options.weights
    idle = not method.copies and len(layouts) > 1 and not any(key.merged or key.copied == "rule" for key in found.keys.values())
    if idle and not found.faults:
        found.faults.append("nothing would be merged: every tensor is copied from the first source. Look at components and rules.")
    return found


def _from_later(recipe: Recipe, method: Method, layouts: Sequence[Layout], options: _Options) -> dict[str, Key]:
    """Harmless keys that only a later source has, where no rule decides them and all components are merged."""
    if method.copies or recipe.components is not None:
        return {}
    why = "only a later source has it"
    return {name: _copy(name, stored, recipe, why) for name, stored in copied_from_later(layouts).items() if not options.decides(name)}


def _position_notes(found: Keys) -> list[str]:
    names = [name for name, key in found.keys.items() if POSITION_IDS.search(name) and key.out.dtype in FLOATS]
    return [f"{some(names)} has floating numbers. Positions are no weights: they are copied as they are."] if names else []


def _check_components(recipe: Recipe, layout: Layout, found: Keys) -> None:
    unknown = [name for name in recipe.components or () if name not in layout.components]
    if unknown:
        found.faults.append(f"components: the first source has no {', '.join(unknown)}; it has {', '.join(layout.components)}.")


def _compare(recipe: Recipe, layouts: Sequence[Layout], found: Keys) -> set[str]:
    """The keys of the first source that another lacks; missing and extra ones are faults unless the recipe allows them.

    Components that are only copied are not compared, nor buffers that a folder never has.
    """
    first, mixed = layouts[0], any(layout.translated for layout in layouts)
    incomplete: set[str] = set()
    extra: dict[str, None] = {}
    for number, layout in enumerate(layouts[1:], 2):
        who = f"source {number} ({layout.path.name})"
        lacking = [name for name in first.tensors if name not in layout.tensors]
        beyond = [name for name in layout.tensors if name not in first.tensors]
        incomplete |= set(lacking)
        extra |= dict.fromkeys(beyond)
        lacking = [name for name in lacking if _counts(name, recipe, first, mixed)]
        beyond = [name for name in beyond if _counts(name, recipe, layout, mixed)]
        odd = [[name for name in names if HARMLESS.search(name)] for names in (lacking, beyond)]
        found.notes += difference_notes(who, *odd)
        lacking, beyond = ([name for name in names if not HARMLESS.search(name)] for names in (lacking, beyond))
        allowed = recipe.missing == "first"
        messages = found.notes if allowed else found.faults
        advice = "" if allowed else f" {_advice(recipe, first, layout)}"
        if lacking:
            messages.append(
                f"{who} lacks {len(lacking)} of the first source's {counted(len(first.tensors), 'key')}: {some(lacking)}.{advice}"
            )
        if beyond and not _wanted(recipe, beyond, number):
            messages.append(f"{who} has {counted(len(beyond), 'key')} that the first source has not: {some(beyond)}.{advice}")
        found.lacking[number], found.beyond[number] = lacking, beyond
    found.extra = list(extra)
    return incomplete


def _counts(name: str, recipe: Recipe, owner: Layout, mixed: bool) -> bool:
    """Whether a key that only one source has is reported."""
    if recipe.components is not None and owner.component(name) not in recipe.components:
        return False
    return not (mixed and UNUSED.search(name))


def _advice(recipe: Recipe, first: Layout, other: Layout) -> str:
    """What to do when keys differ: often one source holds the denoiser alone."""
    other_components = set(other.components)
    both = [component for component in first.components if component in other_components]
    if recipe.components is None and both and set(first.components) != other_components:
        return f"If they hold different components: components=[{','.join(both)}] merges what both have and copies the rest."
    return "Different models? Else missing=first copies the first source's own keys and leaves out the others'."


def _wanted(recipe: Recipe, names: Sequence[str], number: int) -> bool:
    """Whether rules take all of these keys from that source, or drop them."""
    return all(any(re.search(rule.match, name) and (rule.take == number or rule.drop) for rule in recipe.rules) for name in names)


class _Options:
    """The options of each key: params, then the block's weight, then the first rule that matches."""

    def __init__(self, recipe: Recipe, method: Method, layout: Layout, found: Keys) -> None:
        self.recipe, self.method, self.found = recipe, method, found
        self.params = {**method.defaults(), **recipe.params}
        self.rules = [(rule, re.compile(rule.match)) for rule in recipe.rules]
        self.hits = [0] * len(self.rules)  # keys a rule decides
        self.matches = [0] * len(self.rules)  # keys it would match
        self.blocks: dict[str, str] = {}
        self.weights: Mapping[str, float] = {}
        if recipe.weights is not None:
            self._read_weights(recipe, method, layout)
        for number, rule in enumerate(recipe.rules, 1):
            self._check_rule(number, rule.options, rule.take)

    def _read_weights(self, recipe: Recipe, method: Method, layout: Layout) -> None:
        if "alpha" not in method.options:
            self.found.faults.append(
                f"weights gives each block its alpha, and {method.name} has none. It has: {', '.join(method.options) or 'no options'}."
            )
            return
        self.blocks = block_names(layout)
        blocks = blocks_in_order(self.blocks.values())
        given, base = with_base(recipe.weights, blocks)
        if base is not None and "alpha" in recipe.params:
            self.found.faults.append(f"weights begins with BASE ({base:g}), which is params.alpha ({recipe.params['alpha']}): give one.")
        if base is not None:
            self.params["alpha"] = base
            self.found.notes.append(f"the first of {len(given) + 1} weights, {base:g}, is BASE: alpha of all that is in no block.")
        weights = block_weights(given, blocks)
        if isinstance(weights, str):
            self.found.faults.append(weights)
            return
        self.weights = weights
        values = [*weights.values(), *([base] if base is not None else [])]
        faults = {fault for value in values if (fault := method.options["alpha"].fault(value))}
        self.found.faults += sorted(faults)

    def _check_rule(self, number: int, options: Mapping[str, Any], take: int | None) -> None:
        sources = len(self.recipe.sources)
        if take is not None and take > sources:
            self.found.faults.append(f"rule {number} takes source {take}; there are {sources}.")
        self.found.faults += [f"rule {number}: {fault}" for fault in self.method.faults(options, sources) if options]

    def decides(self, name: str) -> bool:
        """Whether a rule matches a key; nothing is counted."""
        return any(pattern.search(name) for _, pattern in self.rules)

    def rule(self, name: str) -> Rule | None:
        """The rule that decides a key, None when none does; counts what each rule is good for."""
        chosen: Rule | None = None
        for index, (rule, pattern) in enumerate(self.rules):
            if pattern.search(name):
                self.matches[index] += 1
                if chosen is None:
                    chosen = rule
                    self.hits[index] += 1
        return chosen

    def of(self, name: str, rule: Rule | None) -> dict[str, Any]:
        """The options of a merged key."""
        options = dict(self.params)
        if (block := self.blocks.get(name)) in self.weights and block is not None:
            options["alpha"] = self.weights[block]
        return options | dict(rule.options if rule is not None else {})

    def taken_extra(self, layouts: Sequence[Layout]) -> list[str]:
        """Keys that only a later source has, and that a rule takes from it."""
        wanted: dict[str, None] = {}
        for rule, pattern in self.rules:
            if rule.take is not None and 1 < rule.take <= len(layouts):
                wanted |= dict.fromkeys(
                    name for name in layouts[rule.take - 1].tensors if name not in layouts[0].tensors and pattern.search(name)
                )
        return list(wanted)

    def unused(self) -> list[str]:
        """Faults of rules that decide no key."""
        faults = []
        for number, ((rule, _), hits, matches) in enumerate(zip(self.rules, self.hits, self.matches, strict=True), 1):
            if matches == 0 and not rule.optional:
                faults.append(
                    f"rule {number} ({rule.match}) matches no key. Keys are matched anywhere in their name, by regular expression; "
                    "optional: true allows it."
                )
            elif hits == 0 and matches:
                faults.append(
                    f"rule {number} ({rule.match}) is shadowed: all {counted(matches, 'key')} it matches "
                    "are decided by rules before it. Move it up."
                )
        return faults


def _key(
    name: str, rule: Rule | None, recipe: Recipe, method: Method, layouts: Sequence[Layout], options: _Options, incomplete: set[str]
) -> Key | str:
    """What happens to one key, or the fault that it has."""
    first = layouts[0].tensors.get(name)
    if rule is not None and rule.take is not None:
        if rule.take > len(layouts):
            return f"{name}: a rule takes it from source {rule.take}; there are {len(layouts)}."
        return _copy(name, layouts[rule.take - 1].tensors[name], recipe, "rule")
    assert first is not None, "keys of later sources only come by a rule"
    why = "as it is" if method.copies else _why_copied(name, first.info, recipe, layouts[0], incomplete)
    if why:
        return _copy(name, (None if method.copies else whole_positions(name, layouts, INTEGERS)) or first, recipe, why)
    sources = tuple(layout.tensors[name] for layout in layouts)
    if strange := next((source for source in sources if source.info.dtype not in FLOATS), None):
        dtypes = f"{first.info.dtype} in the first source and {strange.info.dtype} in {strange.file.name}"
        return f"{name} is {dtypes}; only floating numbers are merged."
    out = TensorInfo(DTYPES[recipe.dtype] if recipe.dtype else first.info.dtype, first.info.shape)
    shapes = [source.info.shape for source in sources]
    shared: tuple[int, ...] | None = None
    if len(set(shapes)) > 1:
        if recipe.mismatch == "first":
            return _copy(name, first, recipe, "shape")
        found = _shared(name, shapes, recipe)
        if isinstance(found, str):
            return found
        shared = found
    return Key(name=name, out=out, sources=sources, options=options.of(name, rule), shared=shared)


def _why_copied(name: str, info: TensorInfo, recipe: Recipe, layout: Layout, incomplete: set[str]) -> str | None:
    if info.elements == 0:
        return "empty"  # markers such as v_pred and ztsnr
    if info.dtype not in FLOATS or POSITION_IDS.search(name):
        return "integer"  # position ids, counters: an average of them is no index
    if recipe.components is not None and layout.component(name) not in recipe.components:
        return "component"
    return "only the first source has it" if name in incomplete else None


def _copy(name: str, source: Stored, recipe: Recipe, why: str) -> Key:
    convert = recipe.dtype is not None and source.info.dtype in FLOATS and source.info.elements > 0 and not POSITION_IDS.search(name)
    dtype = DTYPES[recipe.dtype] if convert and recipe.dtype else source.info.dtype
    return Key(name=name, out=TensorInfo(dtype, source.info.shape), sources=(source,), copied=why)


def _shared(name: str, shapes: Sequence[tuple[int, ...]], recipe: Recipe) -> tuple[int, ...] | str:
    """The leading part that all shapes have, when the recipe merges it; else the fault."""
    different = " and ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
    if recipe.mismatch != "overlap":
        return (
            f"{name} has different shapes: {different}. mismatch=overlap merges what they share, mismatch=first copies the first source's."
        )
    if len({len(shape) for shape in shapes}) > 1:
        return f"{name} has different numbers of axes: {different}. mismatch=first copies the first source's."
    return tuple(min(sizes) for sizes in zip(*shapes, strict=True))
